"""Every file cut short: refused as incomplete or malformed, one line, nothing left; where what is left is whole, the values stay."""
import functools
import json
import os
import random
import re

import fixtures
import tool

EDGE = 4096
# Of these files every byte of the edges is tried by --long, one file of each kind that a reader knows; of the others
# every 64th. In the short form the former get what the others get, and the others a few.
THOROUGH = {
    "torch/pt_views/zip.pt": r"", "torch/pt_views/legacy_stream.pt": r"", "torch/pt_objects/zip_protocol4.pt": r"",
    "torch/pt_repacked_zip/unaligned_stored.pt": r"", "torch/st_dtypes/model": r".*", "torch/hf_llama_gqa/model": r".*",
    "torch/dcp_fsdp1_flat_param/ckpt": r"\.metadata|__1_0\.distcp", "torch/dcp_safetensors_serialization/ckpt": r".*",
    "torch/dcp_hf_writer_sharded/ckpt": r"shard-00002.*", "torch/dcp_hf_writer_consolidated/ckpt": r"model.*",
    "torch/megatron_llama_buckets/legacy": r".*", "torch/megatron_llama_buckets/torch_dist_dp_reshardable":
    r".*(__0_0\.distcp|common\.pt|\.json|\.txt|\.metadata)", "deepspeed/zero1-dp2/ckpt": r".*",
    "deepspeed/zero1-dp2-legacy-pickle/ckpt": r".*rank_0.*", "deepspeed/moe-ep2-zero2-dp2/ckpt": r".*expert_0.*",
    "deepspeed/universal-zero1-dp2/ckpt": r".*(emb\.weight/.*|optimizer_state\.pt)", "hdf5/zero1-dp2": r"", "hdf5/pt_dtypes": r"",
}

# Files that may be cut and leave a whole checkpoint with the same output: by how many bytes at most, and why.
HARMLESS = [
    (r"(.*/)?model\.safetensors\.index\.json", 1, "a line's end after the JSON"),
    (r"sharded/.*", None, "the shards of a model that was consolidated beside them are not read"),
]
# Files without which the tensors stay the same, and a warning names them.
SETTINGS = re.compile(r"(generation_)?config\.json")


def positions(size, thorough, long, every, seed):
    """The lengths to cut to, largest first."""
    blocks = set(range(0, size, 512))
    edges = [n for n in range(size) if n < EDGE or n >= size - EDGE]
    if every or (long and thorough):
        chosen = blocks | set(edges)
    else:
        draw = random.Random(seed)
        count = 200 if long else 24 if thorough else 1
        chosen = {0, size - 1} | set(draw.sample(edges, min(count, len(edges))))
        chosen |= blocks if long else set(draw.sample(sorted(blocks), min(count // 3, len(blocks))))
        if not long and not thorough:
            chosen = set(draw.sample(sorted(chosen), min(2, len(chosen))))
    return sorted((n for n in chosen if 0 <= n < size), reverse=True)


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


def check(fixture, name, lengths, whole):
    found = []
    with tool.Scratch() as scratch:
        source = fixture.copy(scratch.file("in"))
        victim = os.path.join(source, name) if name else source
        size, before, out = os.path.getsize(victim), scratch.left(), scratch.file("out.h5")
        for turn, length in enumerate(lengths):
            os.truncate(victim, length)
            result = fixtures.convert(source, out)
            if result.code == 0 and os.path.exists(out):
                if SETTINGS.fullmatch(name):
                    problems = settings_problems(fixture, source, name, scratch)
                else:
                    problems = fixtures.same_tree(out, fixtures.reference(fixture))
                    if not is_harmless(name, size - length):
                        problems.append("converted although it is cut")
                whole.add((fixture.name, name))
                os.remove(out)
            else:
                problems = fixtures.refusal_problems(result, (1,), scratch.path, before)
            if turn % 8 == 0 and result.code != 0:
                problems += fixtures.refusal_problems(tool.run("inspect", source), (0, 1))
            found += [f"cut to {length}: {problem}" for problem in problems]
            if len(found) > 5:
                break
    return found


def run(tally, options):
    whole, jobs = set(), []
    for fixture in fixtures.everything():
        pattern = THOROUGH.get(fixture.name)
        fixtures.reference(fixture)
        for name in fixture.files():
            size = os.path.getsize(os.path.join(fixture.path, name) if name else fixture.path)
            thorough = pattern is not None and re.fullmatch(pattern, name) is not None
            lengths = positions(size, thorough, options.long, options.every, f"{options.seed} {fixture.name} {name}")
            # In the short form every file of folders of hundreds of alike files is too much.
            if not options.long and not thorough and "/zero/" in name and "emb" not in name:
                continue
            jobs.append((f"cut {fixture.name} {name}", functools.partial(check, fixture, name, lengths, whole)))
    tally.report_all(jobs)
    for fixture, name in sorted(whole):
        print(f"cut: {fixture}: a cut {name} leaves the tensors whole")
