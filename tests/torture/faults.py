"""System calls that fail, one after the other, under fault_shim.c: the exit code tells the kind, one line says what, and the
output path holds what it held before; or, where nothing was lost, the output is the undisturbed one.

More of it in faults_ends.py: kills at every write, full disks, few descriptors, closed folders, inputs that change.
"""
import concurrent.futures
import functools
import os
import random

import faults_ends
import fixtures
import shim
import tool

ONE = ("-q", "-j", "1")
OLD = b"what was here before"
# Small conversions of every way of reading and writing.
CASES = [("torch/pt_views/zip.pt", "h5", []), ("deepspeed/zero1-dp2/ckpt", "h5", ["--verify"]),
         ("torch/hf_llama_gqa/model", "safetensors", []), ("torch/dcp_fsdp1_flat_param/ckpt", "dcp", ["--to", "dcp"]),
         ("torch/pt_module_state/zip.pt", "pt", []), ("hdf5/pt_dtypes", "h5", [])]
# Of these a failure may change nothing: a hint to the system, and a reservation that some file systems refuse.
HINTS = {"sync_file_range", "fallocate"}

class Case:
    def __init__(self, source, kind, flags):
        self.fixture = next(f for f in fixtures.everything() if f.name == source)
        self.kind, self.flags = kind, flags
        self.name = f"{source} to {kind}"
        folder = fixtures.WORK.file(f"faults-{abs(hash(self.name))}")
        os.makedirs(folder, exist_ok=True)
        self.reference = os.path.join(folder, "out." + kind)
        self.sizes = {}
        result = tool.run("convert", *ONE, *flags, self.fixture.path, self.reference)
        if result.code != 0:
            raise RuntimeError(f"{self.name} does not convert undisturbed: {result.error}")

    def args(self, source, out, *more):
        return ("convert", *ONE, *self.flags, *more, source, out)

    def count(self, calls, source=None, under=None):
        """How many such calls an undisturbed run makes, and their names."""
        with tool.Scratch() as scratch:
            made = shim.count(calls, *self.args(source or self.fixture.path, scratch.file("out." + self.kind)), under=under)
            return made[0], [name for name, _ in made[2]], made[1]


def outcome_problems(case, result, scratch, codes, old, may_succeed=False):
    """After a failure: the code, one line, and nothing half done."""
    out = scratch.file("out." + case.kind)
    if result.code == 0:
        problems = result.problems()
        if not may_succeed:
            problems.append("it succeeded")
        problems += fixtures.same_tree(out, case.reference) if os.path.exists(out) else ["no output"]
        left = [name for name in scratch.left() if not (may_succeed and name.endswith(".uckpt-journal"))]
        return problems + ([f"left: {left}"] if left != [os.path.basename(out)] else [])
    if result.code == 2 and "the output is complete" in result.error:   # but its folder could not be synced
        left = scratch.left()
        return result.problems() + result.error_line_problems() + fixtures.same_tree(out, case.reference) + (
            [f"left: {left}"] if left != [os.path.basename(out)] else [])
    before = [os.path.basename(out)] if old else []
    if result.code == 3:   # what can be taken up again may lie beside the output
        before += [name for name in scratch.left() if name.startswith(f".{os.path.basename(out)}.uckpt")]
    problems = fixtures.refusal_problems(result, codes, scratch.path, before)
    if old and (not os.path.isfile(out) or fixtures.read(out) != OLD):
        problems.append("the old output is not what it was")
    return problems


def try_fault(case, fault, codes, under=None, force=False, may_succeed=False, must_succeed=False):
    with tool.Scratch() as scratch:
        out = scratch.file("out." + case.kind)
        if force:
            with open(out, "wb") as file:
                file.write(OLD)
        limit = {"input": case.fixture.path, "output": scratch.path}.get(under)
        result = shim.run(fault, *case.args(case.fixture.path, out, *(["-f"] if force else [])), under=limit)
        problems = outcome_problems(case, result, scratch, codes, force, may_succeed or must_succeed)
        if must_succeed and result.code != 0:
            problems.append("it should have gone on")
        return problems


def points(count, most, seed):
    """All of 1..count, or `most` of them."""
    every = range(1, count + 1)
    return list(every) if count <= most else sorted(random.Random(seed).sample(every, most))


def read_errors(case, options):
    """EIO from the n-th read of the input on: 2. A probe for another format may fail without harm."""
    count = case.count("reads", under=case.fixture.path)[0]
    for n in points(count, 200 if options.long else 40, options.seed):
        yield f"EIO from read {n} on", functools.partial(try_fault, case, f"reads:{n}+:fail:EIO", (2,), "input")
    for n in points(count, 200 if options.long else 15, options.seed + 1):
        yield (f"EIO at read {n}", functools.partial(try_fault, case, f"reads:{n}:fail:EIO", (2,), "input", may_succeed=True))


def write_errors(case, options):
    """EIO, ENOSPC at the n-th call that writes: 2 (3 where the disk is full)."""
    count, names, _ = case.count("write-side")
    for n in points(count, count if options.long else 40, options.seed):
        # The last call of all removes the journal of a run that is done: the next run does that.
        is_hint = names[n - 1] in HINTS or (names[n - 1] == "unlink" and n == count)
        for error, codes in (("EIO", (2,)), ("ENOSPC", (2, 3))):
            force = case.kind not in ("dcp",) and n % 2 == 0
            yield (f"{error} at write-side call {n} ({names[n - 1]})", functools.partial(
                try_fault, case, f"write-side:{n}:fail:{error}", codes, force=force, may_succeed=is_hint))


def sync_errors(case, options):
    """What was not synced must not be called done: of files. (Some file systems cannot sync a folder.)"""
    for name in ("fdatasync", "fsync"):
        for n in range(1, case.count(name)[0] + 1):
            yield f"EIO at {name} {n}", functools.partial(try_fault, case, f"{name}:{n}:fail:EIO", (2,))


def interruptions(case, options):
    """Short and interrupted calls: the same output."""
    for calls in ("reads", "write-side"):
        count, names, _ = case.count(calls)
        for action in ("short", "eintr"):
            if action == "eintr" and calls == "write-side" and case.kind == "h5":
                continue   # the HDF5 library does not repeat its own calls
            yield f"{action} at all {calls}", functools.partial(
                try_fault, case, f"{calls}:0:short" if action == "short" else every_other(calls, count), (0,), must_succeed=True)
            for n in points(count, count if options.long else 12, options.seed + len(action)):
                yield (f"{action} at {calls} {n} ({names[n - 1]})", functools.partial(
                    try_fault, case, f"{calls}:{n}:{action}", (0,), must_succeed=True))


def every_other(calls, count):
    """At most eight calls, spread."""
    return ";".join(f"{calls}:{n}:eintr" for n in range(1, count + 1, -(-count // 8)))


def run(tally, options):
    try:
        shim.library()
    except (RuntimeError, OSError) as error:
        return tally.skip("faults", f"no C compiler: {error}")
    jobs = []
    for source, kind, flags in CASES:
        case = Case(source, kind, flags)
        for make in (read_errors, write_errors, sync_errors, interruptions, *faults_ends.MAKERS):
            jobs += [(f"faults {case.name}: {name}", job) for name, job in make(case, options)]
    jobs += faults_ends.others(options)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, found in [(name, pool.submit(job)) for name, job in jobs]:
            tally.report(name, found.result())
    return None
