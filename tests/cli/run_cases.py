#!/usr/bin/env python3
"""Runs tests/cli/cases/*.sh, each in an empty folder with `uckpt` on PATH and DATA pointing at tests/data.

Beside NAME.sh: NAME.stdout and NAME.stderr, compared line by line, where `*` stands for any text in a line and a line
`...` for any number of lines; NAME.exit, the exit code. Without NAME.stdout any output will do; without NAME.stderr
there must be none; without NAME.exit it must be 0. --update writes the three files from what happens now.
"""
import argparse
import fnmatch
import functools
import glob
import os
import re
import sys

import tool

CASES = os.path.join(tool.TESTS, "cli", "cases")


def lines_match(pattern, text):
    """Whether the lines of `text` fit the lines of `pattern`."""
    if not pattern:
        return not text
    if pattern[0] == "...":
        return any(lines_match(pattern[1:], text[i:]) for i in range(len(text) + 1))
    if not text:
        return False
    # Only `*` is special: brackets are common in shapes.
    glob_line = re.sub(r"[\[?]", lambda m: f"[{m.group()}]", pattern[0])
    return fnmatch.fnmatchcase(text[0], glob_line) and lines_match(pattern[1:], text[1:])


def expected(case, kind, default):
    path = f"{case[:-3]}.{kind}"
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as file:
        return file.read()


def run_case(case):
    with tool.Scratch() as scratch:
        bin_folder = scratch.file("bin")
        work = scratch.file("work")
        os.mkdir(bin_folder)
        os.mkdir(work)
        os.symlink(tool.binary(), os.path.join(bin_folder, "uckpt"))
        env = {"PATH": bin_folder + os.pathsep + os.environ["PATH"], "DATA": tool.DATA, "LC_ALL": "C.UTF-8"}
        return tool.run(case, program="bash", cwd=work, env=env, timeout=120)


def check(case):
    result = run_case(case)
    problems = result.problems()
    code = int(expected(case, "exit", "0"))
    if result.code != code:
        problems.append(f"exit {result.code}, expected {code}")
    for kind, text, default in (("stdout", result.text, "..."), ("stderr", result.error, "")):
        pattern = expected(case, kind, default)
        if not lines_match(pattern.splitlines(), text.splitlines()):
            problems.append(f"{kind} differs:\n--- expected\n{pattern}--- found\n{text}")
    return problems


def update(case):
    result = run_case(case)
    for kind, text, default in (("stdout", result.text, ""), ("stderr", result.error, ""),
                                ("exit", f"{result.code}\n", "0\n")):
        if text != default:
            with open(f"{case[:-3]}.{kind}", "w", encoding="utf-8") as file:
                file.write(text.replace(tool.DATA, "*"))
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="cases whose name contains one of these")
    parser.add_argument("--update", action="store_true", help="write what happens now as the expectation")
    args = parser.parse_args()
    tally = tool.Tally()
    cases = {os.path.basename(case)[:-3]: case for case in sorted(glob.glob(os.path.join(CASES, "*.sh")))}
    tally.report_all((name, functools.partial(update if args.update else check, case)) for name, case in cases.items()
                     if not args.only or any(word in name for word in args.only))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
