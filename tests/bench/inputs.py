"""The checkpoints that the rows read: made at first use, shared by the rows, kept in build/bench."""
import os
import subprocess

import large_hf
import large_megatron
import large_shards
import large_views
import tool
from kept import kept
from large import large_checkpoint, size_of
from large_dcp import large_dcp


def _converted(cache, gigabytes, name, source, *flags):
    """What uckpt makes of another input; made anew where the binary is newer."""
    path = os.path.join(cache, name)
    if os.path.exists(path) and os.path.getmtime(path) < os.path.getmtime(tool.binary()):
        subprocess.run(["rm", "-rf", path], check=True)
    return kept(path, lambda out: subprocess.run(
        [tool.binary(), "convert", "-q", make(source, cache, gigabytes), out, *flags], check=True))


# name → (its name in the cache, what makes it there)
INPUTS = {
    **{f"zero{stage}": (f"large-zero{stage}-{{}}GB", lambda cache, gb, stage=stage: large_checkpoint(cache, stage, gb))
       for stage in (1, 2, 3)},
    "dcp": ("dcp-{}GB", large_dcp),
    "dcp-hf": ("dcp-hf-{}GB", lambda cache, gb: large_dcp(cache, gb, True)),
    **{f"tp-{family}": (f"tp-{family}-{{}}GB", lambda cache, gb, family=family: large_shards.large_shards(cache, gb, family))
       for family in large_shards.FAMILIES},
    "megatron": ("megatron-tp4-pp2-{}GB", large_megatron.large_megatron),
    "core": ("core-{}GB", lambda cache, gb: _converted(cache, gb, f"core-{gb:g}GB", "megatron", "--to", "megatron-core")),
    "hf": ("hf-{}GB", large_hf.large_hf),
    "views": ("views-{}GB.pt", large_views.large_views),
    "hdf5": ("zero2-{}GB.h5", lambda cache, gb: _converted(cache, gb, f"zero2-{gb:g}GB.h5", "zero2")),
    "hdf5-weights": ("weights-{}GB.h5", lambda cache, gb: _converted(cache, gb, f"weights-{gb:g}GB.h5", "hf")),
}
MADE_OF = {"core": "megatron", "hdf5": "zero2", "hdf5-weights": "hf"}


def make(name, cache, gigabytes):
    """The path of an input of about so many gigabytes."""
    return INPUTS[name][1](cache, gigabytes)


def bytes_of(path):
    return os.path.getsize(path) if os.path.isfile(path) else size_of(path)


def files_of(path):
    """Every file of a checkpoint."""
    if os.path.isfile(path):
        return [path]
    return sorted(os.path.join(at, name) for at, _, names in os.walk(path) for name in names)


def missing_of(names, cache, gigabytes):
    """Those of the inputs that are still to be made, and what they are made of."""
    wanted = {*names, *(MADE_OF[name] for name in names if name in MADE_OF)}
    return sorted(name for name in wanted
                  if not os.path.exists(os.path.join(cache, INPUTS[name][0].format(f"{gigabytes:g}"))))
