"""Distributed checkpoints of a gigabyte and more, saved by PyTorch from eight ranks on CPU, kept for the next run."""
import os
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp

from kept import kept

RANKS, WIDTH = 8, 2048   # a file each; a layer is 2,048 x 2,048 weights and their two moments in fp32


def _state(layers, with_moments, mesh):
    from torch.distributed.tensor import DTensor, Shard

    def shard(seed):   # no rank ever has more than its rows
        torch.manual_seed(seed * RANKS + mesh.get_local_rank())
        return DTensor.from_local(torch.randn(WIDTH // RANKS, WIDTH), mesh, [Shard(0)])
    names = [f"layers.{i}.weight" for i in range(layers)]
    if not with_moments:
        return {name: shard(i) for i, name in enumerate(names)}
    return {"model": {name: shard(i) for i, name in enumerate(names)},
            "optim": {"state": {name: {state: shard(layers + i) for state in ("exp_avg", "exp_avg_sq")}
                                for i, name in enumerate(names)}}}


def _rank_main(rank, folder, layers, hugging_face, rendezvous):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    mesh = dist.init_device_mesh("cpu", (RANKS,))
    writer = None
    if hugging_face:
        from torch.distributed.checkpoint import HuggingFaceStorageWriter
        writer = HuggingFaceStorageWriter(folder, save_distributed=True)
    dcp.save(_state(layers, not hugging_face, mesh), checkpoint_id=folder, storage_writer=writer)
    dist.destroy_process_group()


def large_dcp(cache, gigabytes, hugging_face=False):
    """The folder of a checkpoint of about that size; made on first use. Hugging Face shards hold weights only."""
    def fill(folder):
        layers = round(gigabytes * 1e9 / (WIDTH * WIDTH * 4 * (1 if hugging_face else 3)))
        with tempfile.TemporaryDirectory() as scratch:
            mp.start_processes(_rank_main, (folder, layers, hugging_face, os.path.join(scratch, "meet")), RANKS,
                               start_method="fork")   # so that torch is imported once
    return kept(os.path.join(cache, f"dcp{'-hf' if hugging_face else ''}-{gigabytes:g}GB"), fill)
