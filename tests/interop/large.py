"""Checkpoints of a gigabyte and more, written by DeepSpeed on CPU, kept in build/bench for the next run."""
import functools
import os
import shutil

import deepspeed_models as models
from deepspeed_kinds import Kind, write_checkpoint

WIDTH = 1024


def large_kind(stage, gigabytes):
    """bf16 with fp32 masters and two moments: 14 bytes a parameter in stages 1 and 2, 12 in stage 3."""
    depth = max(1, round(gigabytes * 1e9 / (12 if stage == 3 else 14) / (WIDTH * WIDTH)))
    return Kind("for timing", world=2, zero={"stage": stage}, dtype="bf16", steps=1,
                model=functools.partial(models.Net, width=WIDTH, vocab=64, depth=depth, tied=False, frozen=False),
                batch=functools.partial(models.net_batch, 64))


def large_checkpoint(cache, stage, gigabytes, port=29600):
    """The folder of a checkpoint of about that size; made on first use."""
    folder = os.path.join(cache, f"zero{stage}-{gigabytes:g}GB")
    if not os.path.isdir(folder):
        scratch = folder + ".making"
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        write_checkpoint(large_kind(stage, gigabytes), scratch, port, with_truth=False)
        os.rename(scratch, folder)
    return os.path.join(folder, "ckpt")


def size_of(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
