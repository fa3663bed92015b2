#!/usr/bin/env python3
"""What inspect and ls print for every fixture, text and JSON, held against tests/cli/golden/*.txt.

After a wanted change run it with --update and read the diff.
"""
import argparse
import difflib
import functools
import glob
import os
import sys

import tool

GOLDEN = os.path.join(tool.TESTS, "cli", "golden")
COMMANDS = (["inspect"], ["ls", "-a"], ["inspect", "--json"], ["ls", "--json"])


def fixtures():
    """(golden name, paths relative to tests/data) of every fixture."""
    def there(pattern):
        return sorted(os.path.relpath(p, tool.DATA) for p in glob.glob(os.path.join(tool.DATA, pattern)))

    for folder in there("deepspeed/*/ckpt"):
        yield "deepspeed-" + folder.split("/")[1], [folder]
    for folder in there("torch/*"):
        if not os.path.isdir(os.path.join(tool.DATA, folder)):
            continue
        paths = there(f"{folder}/*.pt") + there(f"{folder}/files/*.safetensors") + there(f"{folder}/model")
        paths += there(f"{folder}/ckpt") + there(f"{folder}/legacy")
        yield "torch-" + os.path.basename(folder), paths


def transcript(paths):
    """One text: each command, what it printed, and its exit code where that is not 0."""
    parts = []
    for path in paths:
        for command in COMMANDS:
            result = tool.run(*command[:1], path, *command[1:], cwd=tool.DATA)
            parts.append(f"$ uckpt {command[0]} {' '.join([path, *command[1:]])}\n{result.text}{result.error}")
            if result.code:
                parts.append(f"(exit {result.code})\n")
            parts.append("\n")
            if result.problems():
                parts.append(f"PROBLEM: {result.problems()}\n")
    return "".join(parts)


def check(name, paths, update):
    path, found = os.path.join(GOLDEN, name + ".txt"), transcript(paths)
    if update:
        os.makedirs(GOLDEN, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(found)
        return []
    if not os.path.exists(path):
        return ["no golden: run with --update"]
    with open(path, encoding="utf-8") as file:
        expected = file.read()
    diff = list(difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="", n=1))
    return ["differs:\n" + "\n".join(diff[:40])] if diff else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="fixtures whose name contains one of these")
    parser.add_argument("--update", action="store_true", help="rewrite the goldens with what is printed now")
    args = parser.parse_args()
    tally = tool.Tally()
    tally.report_all((name, functools.partial(check, name, paths, args.update)) for name, paths in fixtures()
                     if not args.only or any(word in name for word in args.only))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
