"""A Llama as Megatron's legacy format keeps it, TP 4 x PP 2: bf16 weights and a distributed optimizer's flat buffers."""
import argparse
import os
import zlib

import torch

from kept import kept, rounded
from large_shards import point_at, save_rank

TP, PP, HEAD, VOCABULARY = 4, 2, 128, 4096
ALIGNMENT = 64   # elements: where a parameter may begin in the flat buffer


def sizes_of(gigabytes):
    """(hidden size, layers): narrow where it is small, and as many layers as four stages can share."""
    hidden = 1024 if gigabytes >= 1 else 512
    # QKV of half as many groups as heads, projection, gate and up, down, and their two norms; 14 bytes a parameter.
    layer = 14 * (hidden * (3 * hidden + 3 * ffn_of(hidden)) + 2 * hidden)
    return hidden, rounded((gigabytes * 1e9 - 14 * 2 * VOCABULARY * hidden) / layer, 4)


def ffn_of(hidden):
    return hidden * 11 // 4


def shapes_of(hidden, layers, stage):
    """name → a rank's shape, in the order in which Megatron registers parameters."""
    shapes, ffn = {}, ffn_of(hidden)
    if stage == 0:
        shapes["embedding.word_embeddings.weight"] = (VOCABULARY // TP, hidden)
    for i in range(layers // PP):
        shapes.update({f"decoder.layers.{i}.{name}": shape for name, shape in {
            "input_layernorm.weight": (hidden,),
            "self_attention.linear_proj.weight": (hidden, hidden // TP),
            "self_attention.linear_qkv.weight": (2 * hidden // TP, hidden),
            "pre_mlp_layernorm.weight": (hidden,),
            "mlp.linear_fc1.weight": (2 * ffn // TP, hidden),
            "mlp.linear_fc2.weight": (hidden, ffn // TP)}.items()})
    if stage == PP - 1:
        shapes["decoder.final_layernorm.weight"] = (hidden,)
        shapes["output_layer.weight"] = (VOCABULARY // TP, hidden)
    return shapes


def flat_buffer(shapes, stage, rank):
    """The optimizer's states, last parameter first, and (begin, end) of each."""
    at, places = 0, {}
    for name, shape in reversed(shapes.items()):
        begin = -(-at // ALIGNMENT) * ALIGNMENT
        at = begin + torch.Size(shape).numel()
        places[name] = (begin, at)
    states = {}
    for state in ("param", "exp_avg", "exp_avg_sq"):
        flat = states[state] = torch.zeros(at)
        for name, (begin, end) in places.items():
            copies = len(shapes[name]) == 1   # norms: every rank has the same
            torch.manual_seed(zlib.crc32(f"{state} {stage} {name} {0 if copies else rank}".encode()))
            flat[begin:end] = torch.randn(end - begin)
    return {**states, "numel_unpadded": at}, places


def arguments(hidden, layers):
    return argparse.Namespace(
        num_layers=layers, hidden_size=hidden, ffn_hidden_size=ffn_of(hidden), num_attention_heads=hidden // HEAD,
        num_query_groups=hidden // HEAD // 2 or 1, group_query_attention=True, kv_channels=HEAD, max_position_embeddings=2048,
        seq_length=2048, padded_vocab_size=VOCABULARY, vocab_size=VOCABULARY, make_vocab_size_divisible_by=128,
        tensor_model_parallel_size=TP, pipeline_model_parallel_size=PP, virtual_pipeline_model_parallel_size=None,
        expert_model_parallel_size=1, world_size=TP * PP, data_parallel_size=1, swiglu=True, normalization="RMSNorm",
        norm_epsilon=1e-5, position_embedding_type="rope", rotary_base=10000, rotary_percent=1.0,
        untie_embeddings_and_output_weights=True, add_bias_linear=False, params_dtype=torch.bfloat16, bf16=True, fp16=False,
        use_distributed_optimizer=True, iteration=100, num_experts=None, ckpt_format="torch", main_grads_dtype=torch.float32)


def param_groups():
    common = {"is_expert_parallel": False, "lr_mult": 1.0, "is_decoupled_lr": False, "max_lr": 3e-4, "min_lr": 3e-5,
              "lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "step": 100.0}
    return [{"wd_mult": decays, **common} for decays in (1.0, 0.0)]


def large_megatron(cache, gigabytes):
    """The root of a checkpoint of about that size; made on first use, a rank at a time."""
    def fill(folder):
        hidden, layers = sizes_of(gigabytes)
        for stage in range(PP):
            for rank in range(TP):
                shapes = shapes_of(hidden, layers, stage)
                buffer, places = flat_buffer(shapes, stage, rank)
                model = {name: buffer["param"][slice(*places[name])].view(shape).bfloat16() for name, shape in shapes.items()}
                save_rank(folder, f"mp_rank_{rank:02d}_{stage:03d}", {
                    "model_optim_rng.pt": {"args": arguments(hidden, layers), "checkpoint_version": 3.0, "iteration": 100,
                                           "model": model, "optimizer": {"optimizer": {"param_groups": param_groups()}}},
                    "distrib_optim.pt": {"buckets_coalesced": True, 0: {(torch.bfloat16, torch.float32): buffer}}})
        point_at(folder)
    return kept(os.path.join(cache, f"megatron-tp{TP}-pp{PP}-{gigabytes:g}GB"), fill)
