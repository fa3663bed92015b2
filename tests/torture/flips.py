"""Single bits flipped in fixtures whose truth is known.

Where a checksum covers the byte (members of a torch archive, the items of a .distcp file) the conversion must fail, 1.
In the rest of an archive, and in members that tell nothing of the values (version, serialization_id, …) and are not
read, it may fail or give the same output. Of files without checksums (safetensors, `.metadata`, the
torch stream before 1.6, HDF5, JSON) it must not die; how often the output was another one is counted and printed.
Digests of our own HDF5 files are checked by `uckpt verify PATH`: what changes a tensor, it finds.
"""
import collections
import functools
import os
import random

import fixtures
import tool

# The files that are flipped: of each kind some, as large as they come.
SOURCES = [
    "torch/pt_views/zip.pt", "torch/pt_objects/zip_protocol4.pt", "torch/pt_dtypes/zip.pt", "torch/pt_views/legacy_stream.pt",
    "torch/pt_repacked_zip/unaligned_stored.pt", "torch/hf_llama_gqa/model", "torch/st_dtypes/model",
    "torch/dcp_fsdp1_flat_param/ckpt", "torch/dcp_tp_fsdp2/ckpt", "torch/dcp_safetensors_serialization/ckpt",
    "torch/megatron_llama_buckets/legacy", "torch/megatron_llama_buckets/torch_dist_dp_reshardable",
    "deepspeed/zero1-dp2/ckpt", "deepspeed/zero3-dp2/ckpt", "deepspeed/bf16-zero1-dp2/ckpt", "deepspeed/moe-ep2-zero2-dp2/ckpt",
    "deepspeed/pipe-pp2-dp2/ckpt", "deepspeed/universal-zero1-dp2/ckpt", "hdf5/zero1-dp2", "hdf5/pt_dtypes",
]
# Folders with files or items that say again what is read elsewhere (a tied name's or a buffer's, a bucket's filler).
NOT_ALL_READ = {"deepspeed/universal-zero1-dp2/ckpt", "torch/megatron_llama_buckets/torch_dist_dp_reshardable"}
FLIPS = 5000
BATCH = 20


def kind_of_file(fixture, name):
    if fixture.name == "torch/dcp_safetensors_serialization/ckpt" and name.endswith(".distcp"):
        return "safetensors image"
    base = os.path.basename(name) or os.path.basename(fixture.path)
    if base.endswith((".pt", ".distcp")):
        return "torch stream" if "legacy" in base else "archive"
    return "DCP .metadata" if base == ".metadata" else os.path.splitext(base)[1] or base


class Outcomes:
    """What flips under no checksum led to, by kind of file."""

    def __init__(self):
        self.counts = collections.Counter()

    def note(self, kind, outcome):
        self.counts[kind, outcome] += 1   # one thread at a time: the interpreter's lock

    def print(self):
        for kind in sorted({kind for kind, _ in self.counts}):
            told = ", ".join(f"{self.counts[kind, outcome]} {outcome}"
                             for outcome in ("refused", "the same output", "another output") if self.counts[kind, outcome])
            print(f"flips: {kind}, under no checksum: {told}")


def tensors_differ(fixture, source):
    """Else it is one of the texts (layout, settings, JSON views), which have no digest."""
    return tool.run("sum", source).out != tool.run("sum", fixture.path).out


def is_refused_by_verify(path):
    result = tool.run("verify", path)
    return result.code == 1 and not result.problems()


def judge(fixture, name, covered, result, out, source, outcomes):
    """Problems of one run whose input has one bit flipped."""
    problems = result.problems()
    kind = kind_of_file(fixture, name)
    if result.code != 0:
        if result.code != 1:
            problems.append(f"exit {result.code}: {result.error.strip()[:200]}")
        outcomes.note(kind + (" members" if covered else ""), "refused")
        return problems + result.error_line_problems()
    same = not fixtures.same_tree(out, fixtures.reference(fixture))
    if covered:
        if same and fixture.name in NOT_ALL_READ:
            return problems
        return problems + ["converted although a checksum covers the byte"]
    outcomes.note(kind, "the same output" if same else "another output")
    if kind == "archive" and not same:
        problems.append("another output, from the frame of an archive")
    if fixture.kind == "hdf5" and not same and tensors_differ(fixture, source) and not is_refused_by_verify(source):
        problems.append("verify finds nothing")
    return problems


def check(fixture, places, outcomes):
    """`places`: (file, byte, bit) to flip, one at a time."""
    found = []
    with tool.Scratch() as scratch:
        source = fixture.copy(scratch.file("in"))
        before, out = scratch.left(), scratch.file("out.h5")
        ranges = {name: fixtures.covered_ranges(os.path.join(fixture.path, name) if name else fixture.path)
                  for name in {name for name, _, _ in places}}
        for name, at, bit in places:
            victim = os.path.join(source, name) if name else source
            covered = any(begin <= at < end and is_read for begin, end, is_read in ranges[name] or [])
            flip(victim, at, bit)
            result = fixtures.convert(source, out)
            problems = judge(fixture, name, covered, result, out, source, outcomes)
            flip(victim, at, bit)
            if os.path.exists(out):
                os.remove(out)
            if scratch.left() != before:
                problems.append(f"left: {scratch.left()}")
            found += [f"{name} bit {bit} of byte {at}: {problem}" for problem in problems]
    return found


def flip(path, at, bit):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def run(tally, options):
    every = {fixture.name: fixture for fixture in fixtures.everything()}
    draw, outcomes, jobs = random.Random(options.seed), Outcomes(), []
    total = FLIPS if options.long else FLIPS // 5
    for name in SOURCES:
        fixture = every[name]
        tally.report(f"truth {name}", fixtures.truth_problems(fixture))
        # By kind of file as often: tables and headers are small, and matter most.
        files = collections.defaultdict(list)
        for file in fixture.files():
            if os.path.getsize(os.path.join(fixture.path, file) if file else fixture.path) > 0:
                files[kind_of_file(fixture, file)].append(file)
        places = []
        for _ in range(total // len(SOURCES)):
            kind = draw.choice(sorted(files))
            if kind.startswith("latest") or kind == ".txt":   # a few bytes, soon known
                kind = draw.choice(sorted(files))
            file = draw.choice(files[kind])
            size = os.path.getsize(os.path.join(fixture.path, file) if file else fixture.path)
            places.append((file, draw.randrange(size), draw.randrange(8)))
        jobs += [(f"flips {name} {n}", functools.partial(check, fixture, places[n:n + BATCH], outcomes))
                 for n in range(0, len(places), BATCH)]
    tally.report_all(jobs)
    outcomes.print()
