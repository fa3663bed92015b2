"""Every file cut short: refused as incomplete or malformed, one line, nothing left; where what is left is whole, the values stay.

The lengths are every multiple of 512 and every byte of the first and last 4 KiB of every file of every fixture, all of them
in the long form, a draw of them in the short one. They are converted by cut_driver, many in one process; some of them, and of
those that it says are whole, by the command line.
"""
import functools
import json
import os
import random
import re
import subprocess

import fixtures
import tool

EDGE, BLOCK = 4096, 512
SHORT = 256   # of so many lengths the short form tries one

# Files that may be cut and leave a whole checkpoint with the same output: by how many bytes at most, and why.
HARMLESS = [
    (r"(.*/)?model\.safetensors\.index\.json", 1, "a line's end after the JSON"),
    (r"sharded/.*", None, "the shards of a model that was consolidated beside them are not read"),
]
# Files without which the tensors stay the same, and a warning names them.
SETTINGS = re.compile(r"(generation_)?config\.json")


def lengths_of(size, long, seed):
    """The lengths to cut to, largest first."""
    every = set(range(0, size, BLOCK)) | {n for n in range(size) if n < EDGE or n >= size - EDGE}
    if not long and every:
        every = {0, size - 1} | set(random.Random(seed).sample(sorted(every), len(every) // SHORT))
    return sorted((n for n in every if n >= 0), reverse=True)


def is_harmless(name, lost):
    return any(re.fullmatch(pattern, name) and (most is None or lost <= most) for pattern, most, _ in HARMLESS)


def is_json(path):
    try:
        json.loads(fixtures.read(path))
    except ValueError:
        return False
    return True


def settings_problems(fixture, source, name, scratch):
    """A model whose configuration is damaged: the same tensors, and a warning."""
    out = scratch.file("out.safetensors")
    result = tool.run("convert", "--no-sync", source, out)
    problems = result.problems()
    if is_json(os.path.join(source, name)) == (f"uckpt: warning: {name} " in result.error):
        problems.append("a warning for a whole file, or none for a cut one")
    if not problems and fixtures.safetensors(out) != fixtures.safetensors(fixture.expected):
        problems.append("other tensors than the truth")
    if os.path.exists(out):
        os.remove(out)
    return problems


class Victim:
    """One file of a copy of a fixture."""

    def __init__(self, fixture, name, scratch):
        self.fixture, self.name, self.scratch = fixture, name, scratch
        self.source = fixture.copy(scratch.file("in"))
        self.path = os.path.join(self.source, name) if name else self.source
        self.size = os.path.getsize(self.path)
        self.out = scratch.file("out.h5")

    def restore(self):
        with open(self.path, "wb") as file:
            file.write(fixtures.read(os.path.join(self.fixture.path, self.name) if self.name else self.fixture.path))

    def drive(self, lengths):
        """What cut_driver found: lengths that left the checkpoint whole, and problems."""
        place = self.scratch.file("at")
        done = subprocess.run([driver(), self.source, self.path, self.out, place], input="\n".join(map(str, lengths)),
                              capture_output=True, text=True, check=False)
        lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
        problems = [f"cut to {length}: {text}" for length, text in lines if text not in ("whole", "refused")]
        if done.returncode != 0:
            problems.append(f"cut to {fixtures.read(place).decode().strip()}: the process ended with {done.returncode}: "
                            f"{done.stderr[:300]}")
        elif len(lengths) != int(lines[-1][0]) + len(lines) - 1:
            problems.append("the driver lost count")
        return [int(length) for length, text in lines if text == "whole"], problems

    def run(self, length):
        """The problems of one conversion by the command line, and whether it succeeded."""
        before = self.scratch.left()
        os.truncate(self.path, length)
        result = fixtures.convert(self.source, self.out)
        if result.code != 0 or not os.path.exists(self.out):
            return (fixtures.refusal_problems(result, (1,), self.scratch.path, before) +
                    fixtures.refusal_problems(tool.run("inspect", self.source), (0, 1))), False
        if SETTINGS.fullmatch(self.name):
            problems = settings_problems(self.fixture, self.source, self.name, self.scratch)
        else:
            problems = fixtures.same_tree(self.out, fixtures.reference(self.fixture))
        os.remove(self.out)
        return problems, True


def driver():
    path = os.path.join(os.path.dirname(tool.binary()), "cut_driver")
    if not os.access(path, os.X_OK):
        raise SystemExit(f"no driver at {path}: build the target cut_driver")
    return path


def check(fixture, name, lengths, long, whole, tried):
    with tool.Scratch() as scratch:
        victim = Victim(fixture, name, scratch)
        seen_whole, found = victim.drive(lengths)
        tried.append(len(lengths))
        asked = random.Random(f"{fixture.name} {name}")
        some = asked.sample(lengths, min(4 if long else 1, len(lengths)))
        victim.restore()
        found += [f"cut to {length}: converted although it is cut" for length in seen_whole
                  if not (SETTINGS.fullmatch(name) or is_harmless(name, victim.size - length))]
        some += asked.sample(seen_whole, min(100, len(seen_whole)))
        for length in sorted(set(some), reverse=True):
            problems, succeeded = victim.run(length)
            if succeeded != (length in seen_whole):
                problems.append("the driver and the command line do not agree whether it is whole")
            if succeeded:
                whole.add((fixture.name, name))
            found += [f"cut to {length}: {problem}" for problem in problems]
            if len(found) > 5:
                break
    return found


def run(tally, options):
    whole, tried, jobs = set(), [], []
    driver()
    for fixture in fixtures.everything():
        fixtures.reference(fixture)
        for name in fixture.files():
            size = os.path.getsize(os.path.join(fixture.path, name) if name else fixture.path)
            lengths = lengths_of(size, options.long, f"{options.seed} {fixture.name} {name}")
            jobs.append((f"cut {fixture.name} {name}",
                         functools.partial(check, fixture, name, lengths, options.long, whole, tried)))
    tally.report_all(jobs)
    for fixture, name in sorted(whole):
        print(f"cut: {fixture}: a cut {name} leaves the tensors whole")
    print(f"cut: {sum(tried):,} lengths tried")
