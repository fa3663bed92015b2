#!/usr/bin/env python3
"""Torture tests of uckpt as a black box: damaged inputs, failing system calls, kills, rivals.

    tests/torture/run.py [--long] [--seed N] [SUITE...]

Runs the binary that UCKPT names (default: build/release/uckpt). Without --long all suites together take minutes;
scripts/torture runs the long forms.

    cut        every file of every fixture cut short
    missing    every file removed in turn, and files of other runs added
    flips      single bits flipped, held against the checksums and the truth
    identical  the same bytes whatever the threads, the environment, the working folder
    race       many starts onto one output: one wins
    faults     system calls that fail (fault_shim.c), full disks, closed folders, /dev/full, changing inputs
    kill       killed at random moments, then run again

What each expects stands at the top of its module. Truth is tests/data's expected.safetensors, read by the few lines of fixtures.py. Problems
are printed as `FAILED suite case: …`; the last line is `N passed, N failed, N skipped`. All chances come from --seed, so
what failed once fails again.
"""
import argparse
import importlib
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fixtures  # noqa: E402
import tool  # noqa: E402

SUITES = ("cut", "missing", "flips", "identical", "race", "faults", "kill")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="which ones (default: all)")
    parser.add_argument("--long", action="store_true", help="the long forms: hours")
    parser.add_argument("--seed", type=int, default=1, help="where the chances begin")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}: there are {', '.join(SUITES)}")
    tool.binary()
    tally = tool.Tally()
    with fixtures.WORK:
        for name in options.suites or SUITES:
            begun = time.monotonic()
            importlib.import_module(name).run(tally, options)
            print(f"== {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
