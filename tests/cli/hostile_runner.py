#!/usr/bin/env python3
"""Every line of tests/data/hostile/manifest.json, held against its verdict with inspect, ls and convert.

Runs the binary that UCKPT names. With --trace each run also goes through strace: no program may be started, and no
file opened outside the case, the output folder and the system's own libraries.
"""
import argparse
import functools
import glob
import json
import os
import re
import shutil
import sys

import tool

VERBS = ("inspect", "ls", "convert")
SYSTEM = re.compile(r"^(/lib|/usr/lib|/usr/share|/etc/(ld\.so|localtime|nsswitch|passwd)|/proc/|/sys/|/dev/(null|tty|urandom))")


class Case:
    def __init__(self, entry):
        self.entry = entry
        self.name = entry["file"]
        self.whole = os.path.join(tool.DATA, "hostile", self.name)
        self.path = os.path.normpath(os.path.join(self.whole, entry.get("open", "")))
        self.expect = entry["expect"]

    def codes(self, verb):
        """The exit codes the manifest allows for a verb."""
        if self.expect == "reject":
            return {1}
        if verb != "convert":
            return {0}
        if self.entry.get("convert") == "either":
            return {0, 1}
        if self.expect == "accept":
            return {0}
        targets = self.entry.get("refuse_targets")
        return {0} if targets is not None and "hdf5" not in targets else {1}


def check_trace(path, case, scratch):
    problems, allowed = [], (case.whole, scratch.path, tool.binary())
    with open(path, errors="replace") as file:
        for line in file:
            if re.search(r"\bexecve\(", line) and tool.binary() not in line:
                problems.append("started a program: " + line.strip()[:120])
            opened = re.search(r"\bopen(?:at)?\((?:[^,]+, )?\"([^\"]*)\".*= (\d+)", line)
            if not opened or int(opened.group(2)) < 0:
                continue
            name = opened.group(1)
            if "O_TMPFILE" in line:
                continue   # scratch without a name: nothing can be left of it
            if name.startswith("/") and not name.startswith(allowed) and not SYSTEM.match(name):
                problems.append(f"opened {name}")
    return problems


def check_values(case, out, scratch):
    """The manifest's numbers, read back from the converted file."""
    problems = []
    for name, expected in case.entry.get("values", {}).items():
        for state in ("param", "other", "fp32", "buffer"):
            npy = scratch.file("value.npy")
            if tool.run("extract", out, f"{state}/{name}", "-o", npy).code == 0:
                values = tool.read_npy(npy)[2]
                os.remove(npy)
                if values != expected:
                    problems.append(f"{name}: expected {expected}, found {values}")
                break
        else:
            problems.append(f"{name} is not in the converted file")
    return problems


def limits(case, result, sanitized):
    problems, slow = [], 3 if sanitized else 1
    if result.seconds > case.entry.get("max_seconds", 10) * slow:
        problems.append(f"took {result.seconds:.1f} s")
    bound = case.entry.get("max_rss_mb", 512)
    if not sanitized and result.rss_mb > bound:
        problems.append(f"{result.rss_mb:.0f} MB resident, the bound is {bound}")
    return problems


def check_verb(case, verb, sanitized, trace):
    with tool.Scratch() as scratch:
        marker, out, log = scratch.file("marker"), scratch.file("out.h5"), scratch.file("trace.log")
        args = [verb, case.path, out] if verb == "convert" else [verb, case.path]
        prefix = ["strace", "-f", "-qq", "-e", "trace=open,openat,execve", "-o", log] if trace else []
        result = tool.run(*args, env={"HOSTILE_MARKER": marker}, timeout=60, prefix=prefix)
        problems = result.problems()
        if not trace:
            problems += limits(case, result, sanitized)
        if result.code not in case.codes(verb):
            problems.append(f"exit {result.code}, expected {sorted(case.codes(verb))}: {result.error.strip()[:200]}")
        if result.code > 0:
            problems += result.error_line_problems()
            if result.out and verb == "convert":
                problems.append("something on stdout although it failed")
        if trace:
            problems += check_trace(log, case, scratch)
            os.remove(log)
        if os.path.exists(marker):
            problems.append("THE PAYLOAD RAN")
        if verb == "convert" and result.code == 0:
            problems += check_values(case, out, scratch)
        expected_left = ["out.h5"] if verb == "convert" and result.code == 0 else []
        if scratch.left() != expected_left:
            problems.append(f"left behind: {scratch.left()}")
        return problems


def check_abort(path, verb):
    """A damaged HDF5 file that makes the library itself abort: 0 or 1, never a signal."""
    with tool.Scratch() as scratch:
        out = [scratch.file("out.h5")] if verb == "convert" else []
        result = tool.run(verb, path, *out, timeout=60)
        problems = result.problems()
        if result.code not in (0, 1):
            problems.append(f"exit {result.code}, expected 0 or 1")
        if result.code > 0:
            problems += result.error_line_problems()
            if scratch.left():
                problems.append(f"left behind: {scratch.left()}")
        return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="run the cases whose name contains one of these")
    parser.add_argument("--trace", action="store_true", help="check with strace what is opened and started")
    args = parser.parse_args()
    tally = tool.Tally()
    if args.trace and not shutil.which("strace"):
        tally.skip("hostile --trace", "no strace on this machine")
        return tally.finish()
    sanitized = tool.is_sanitized()
    with open(os.path.join(tool.DATA, "hostile", "manifest.json")) as file:
        cases = [Case(entry) for entry in json.load(file)]
    jobs = [(f"{case.name} {verb}", functools.partial(check_verb, case, verb, sanitized, args.trace)) for case in cases
            for verb in VERBS if not args.only or any(word in case.name for word in args.only)]
    if not args.only and not args.trace:
        aborting = sorted(glob.glob(os.path.join(tool.DATA, "hostile-hdf5-abort", "*.h5")))
        jobs += [(f"{os.path.basename(path)} {verb}", functools.partial(check_abort, path, verb)) for path in aborting
                 for verb in VERBS]
    tally.report_all(jobs)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
