"""Tensor parallel weights over four ranks in Megatron's legacy format, all of one kind: families.ucl has their rules."""
import argparse
import os

import torch

from kept import kept, rounded

TP, HIDDEN, HEAD, GROUPS, QUERIES = 4, 2048, 128, 8, 2   # queries a group of heads
FAMILIES = {
    "columns": ("mlp.linear_fc1", (4 * HIDDEN // TP, HIDDEN)),
    "rows": ("mlp.linear_fc2", (HIDDEN, 4 * HIDDEN // TP)),
    "qkv": ("self_attention.linear_qkv", (GROUPS // TP * (QUERIES + 2) * HEAD, HIDDEN)),
    "swiglu": ("mlp.linear_fc1", (2 * 3 * HIDDEN // TP, HIDDEN)),
}


def save_rank(folder, name, state):
    os.makedirs(os.path.join(folder, "iter_0000100", name))
    for file, value in state.items():
        torch.save(value, os.path.join(folder, "iter_0000100", name, file))


def point_at(folder):
    with open(os.path.join(folder, "latest_checkpointed_iteration.txt"), "w") as file:
        file.write("100")


def large_shards(cache, gigabytes, family):
    """The root of a checkpoint of about that size, in bf16; made on first use, a rank at a time."""
    module, shape = FAMILIES[family]
    bytes_a_layer = TP * 2 * shape[0] * shape[1]
    layers = rounded(gigabytes * 1e9, bytes_a_layer) // bytes_a_layer

    def fill(folder):
        args = argparse.Namespace(tensor_model_parallel_size=TP, pipeline_model_parallel_size=1, num_layers=layers,
                                  params_dtype=torch.bfloat16, bf16=True)
        for rank in range(TP):
            torch.manual_seed(rank)
            model = {f"decoder.layers.{i}.{module}.weight": torch.randn(shape).bfloat16() for i in range(layers)}
            save_rank(folder, f"mp_rank_{rank:02d}", {"model_optim_rng.pt": {
                "args": args, "checkpoint_version": 3.0, "iteration": 100, "model": model}})
        point_at(folder)
    return kept(os.path.join(cache, f"tp-{family}-{gigabytes:g}GB"), fill)
