"""Checkpoints of a gigabyte and more, written by DeepSpeed on CPU, kept in build/bench for the next run."""
import os

from made import make_checkpoints


def large_checkpoint(cache, stage, gigabytes):
    """The folder of a checkpoint of about that size; made on first use."""
    name = f"large-zero{stage}-{gigabytes:g}GB"
    if not os.path.isdir(os.path.join(cache, name)):
        make_checkpoints(cache, name)
    return os.path.join(cache, name, "ckpt")


def size_of(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
