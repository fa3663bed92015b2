#!/usr/bin/env python3
"""Runs every command shown in samples/README.md, in a copy, with the binary that UCKPT names."""
import os
import re
import shutil
import sys

import tool

SHOWN = "build/release/uckpt"


def commands():
    with open(os.path.join(tool.ROOT, "samples", "README.md"), encoding="utf-8") as file:
        for block in re.findall(r"```sh\n(.*?)```", file.read(), re.S):
            yield from (line for line in block.splitlines() if line.strip())


def main():
    tally = tool.Tally()
    with tool.Scratch() as scratch:
        shutil.copytree(os.path.join(tool.ROOT, "samples"), scratch.file("samples"))
        os.makedirs(scratch.file("build/release"))
        os.symlink(tool.binary(), scratch.file(SHOWN))
        for command in commands():
            result = tool.run("-c", command, program="bash", cwd=scratch.path)
            problems = result.problems()
            if result.code:
                problems.append(f"exit {result.code}: {result.error.strip()}")
            tally.report(command, problems)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
