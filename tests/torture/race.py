"""Eight starts at once onto one output: one makes it, the others say that it is being written or exists already."""
import os
import re
import subprocess

import fixtures
import tool

STARTS = 8
KINDS = {"h5": [], "dcp": ["--to", "dcp"]}   # one file, and a folder


def start(source, out, flags):
    return subprocess.Popen([tool.binary(), "convert", "-q", "--no-sync", "-j", "1", *flags, source, out], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def loser_problems(process, error, winner):
    if process.returncode != 2:
        return [f"a loser ended with {process.returncode}: {error.strip()[:200]}"]
    lines = [line for line in error.splitlines() if line.startswith("uckpt: ")]
    if len(lines) != 1:
        return [f"{len(lines)} lines: {error.strip()[:200]}"]
    if "exists already" in lines[0]:
        return []
    if "writing this output" not in lines[0]:
        return [f"expected who writes it, found {lines[0]!r}"]
    # Where the line names a process, it is one of the rivals: the winner, or one that held it for a moment and lost.
    named = re.search(r"process (\d+)", lines[0])
    return [f"it names process {named[1]}"] if named and int(named[1]) not in winner else []


def check(kind, flags, fixture, reference, force):
    with tool.Scratch() as scratch:
        out = scratch.file("out." + kind)
        processes = [start(fixture.path, out, flags + (["-f"] if force else [])) for _ in range(STARTS)]
        errors = [process.communicate()[1] for process in processes]
        winners = [process for process in processes if process.returncode == 0]
        # With -f several may win one after the other.
        problems = [] if winners and (force or len(winners) == 1) else [f"{len(winners)} of {STARTS} made it"]
        everyone = [process.pid for process in processes]
        for process, error in zip(processes, errors):
            if process.returncode != 0:
                problems += loser_problems(process, error, everyone)
        if os.path.exists(out):
            problems += fixtures.same_tree(out, reference)
        if scratch.left() != [os.path.basename(out)]:
            problems.append(f"left: {scratch.left()}")
        return problems


def run(tally, options):
    fixture = fixtures.named("deepspeed/zero1-dp2/ckpt")
    for kind, flags in KINDS.items():
        reference = fixtures.WORK.file("race." + kind)
        fixtures.convert(fixture.path, reference, *flags)
        for force in (False, True):
            rounds = 100 if options.long else 20 if not force else 5
            for turn in range(rounds):
                tally.report(f"race {kind}{' -f' if force else ''} {turn}", check(kind, flags, fixture, reference, force))
