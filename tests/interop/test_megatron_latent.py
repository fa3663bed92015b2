"""Models with latent attention, and with layers that predict further tokens: legacy checkpoints of Megatron-core against
its distributed ones of the same run."""
import os
import shutil

import pytest
import torch

import megatron_run
from common import convert, refused, uckpt
from test_megatron_core import CONFIG
from test_megatron_legacy_writer import ITERATION

LATENT = dict(multi_latent_attention=True, q_lora_rank=12, kv_lora_rank=8, qk_head_dim=4, qk_pos_emb_head_dim=4, v_head_dim=6,
              rope_type="rope")
MIXED = dict(moe_layer_freq=[0, 1, 1, 1], moe_shared_expert_intermediate_size=20)


def job(tp, pp, moe=False, model=None, **more):
    arguments = dict(num_layers=4, hidden_size=16, num_attention_heads=4, num_query_groups=2, group_query_attention=True, ffn_hidden_size=24,
                     padded_vocab_size=96, make_vocab_size_divisible_by=16, tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp,
                     expert_tensor_parallel_size=tp, world_size=tp * pp, swiglu=True, iteration=120, num_experts=4 if moe else None,
                     untie_embeddings_and_output_weights=True, use_distributed_optimizer=True)
    return {"config": CONFIG, "tp": tp, "pp": pp, "world": tp * pp, "moe": moe, "model": model, "rng": False, "iteration": ITERATION,
            "arguments": arguments | model} | more


def both(tmp_path, *args, **more):
    """A legacy checkpoint and a distributed one, with the same random values."""
    legacy, core = str(tmp_path / "legacy"), str(tmp_path / "core")
    megatron_run.load(job(*args, make=True, again=legacy, save={"folder": core, "sharding": "dp_reshardable"}, **more))
    (tmp_path / "legacy" / "latest_checkpointed_iteration.txt").write_text("120")
    return legacy, core


def same(a, b, *flags):
    done = uckpt("diff", a, b, *flags)
    assert done.code == 0, done.text + done.error


@pytest.mark.parametrize("tp, pp, moe, model", [
    (2, 1, False, LATENT | {"q_lora_rank": None, "mtp_num_layers": 1}),
    (2, 2, True, LATENT | MIXED | {"qk_layernorm": True, "mtp_num_layers": 1})], ids=["dense", "experts"])
def test_legacy_is_as_distributed(tp, pp, moe, model, tmp_path, out):
    legacy, core = both(tmp_path, tp, pp, moe, model)
    same(legacy, core)
    other = convert(core, str(tmp_path / "other"), "--to", "megatron", "--layout", "tp=1,pp=2")
    same(other, core)
    megatron_run.load(job(1, 2, moe, model, folder=other, again=str(tmp_path / "loaded")))   # strictly, and saves it
    same(str(tmp_path / "loaded" / ITERATION), core)
    assert "`embedding.word_embeddings.weight`" in refused(core, out, "--to", "megatron", "--layout", "pp=2,vp=2")


def test_latent_attention_of_transformer_engine(tmp_path):
    """Its down projections are whole on each rank, and norms part of the matrix behind them: so in its source, here made
    of a run without it."""
    legacy, _ = both(tmp_path, 2, 1, False, LATENT | {"qk_layernorm": True})
    files = [os.path.join(legacy, ITERATION, f"mp_rank_0{rank}", "model_optim_rng.pt") for rank in range(2)]
    for file in files:
        os.remove(os.path.join(os.path.dirname(file), "distrib_optim.pt"))
        torch.save({k: v for k, v in torch.load(file, weights_only=False).items() if k != "optimizer"}, file)
    made = str(tmp_path / "made")
    shutil.copytree(legacy, made)
    files = [file.replace(legacy, made) for file in files]
    saved = [torch.load(file, weights_only=False) for file in files]
    models = [state["model"] for state in saved]
    for name in [n for n in models[0] if n.endswith("down_proj.weight")]:
        whole = torch.cat([model[name] for model in models])
        for model in models:
            model[name] = whole
    for file, state in zip(files, saved):
        state["args"].transformer_impl = "transformer_engine"
        renamed = {"pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_", ".q_layernorm.": ".linear_q_up_proj.layer_norm_",
                   ".kv_layernorm.": ".linear_kv_up_proj.layer_norm_"}
        for name in list(state["model"]):
            for old, new in renamed.items():
                if old in name:
                    state["model"][name.replace(old, new)] = state["model"].pop(name)
        torch.save(state, file)
    same(convert(made, str(tmp_path / "made.h5"), "--as", "megatron_gpt"), legacy)
