"""DeepSpeed trains and saves; that becomes a PyTorch distributed checkpoint; and of it DeepSpeed's again, where training goes on."""
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import get_state_dict

from common import DATA, Consolidated, convert, differences, expected_tensors, raw_bytes, refused, uckpt
from test_dcp import save, trained
from test_reshard_deepspeed import (STEPS_AFTER, Case, at, differing, fact_differences, original,  # noqa: F401
                                    state_differences, tolerance, trainer)

# Programs without a scheduler, buffers and tied weights: a distributed checkpoint does not tell of these.
CASES = [
    Case("small", at(dp=4, zero=3), at(dp=3, zero=1)),
    Case("bare", at(dp=1, zero=1), at(dp=2, zero=3)),
    Case("bare", at(dp=2, zero=3), at(dp=2, zero=2)),
    Case("bare-bf16", at(dp=2, zero=2), at(dp=2, zero=3)),
    Case("bare-bf16", at(dp=2, zero=3), at(dp=3, zero=1)),
    Case("moe", at(dp=2, ep=2, zero=1), at(dp=2, zero=1)),
    Case("moe", at(dp=2, zero=1), at(dp=2, ep=2, zero=2)),
    Case("llama", at(dp=1, tp=2, zero=1), at(dp=2, zero=2)),
]


@pytest.mark.parametrize("way", ["direct", "hdf5"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_resume(case, way, trainer, original, tmp_path):  # noqa: F811
    source, truth = original(case.program, case.source), str(tmp_path / "truth.pt")
    through = convert(source.root, str(tmp_path / "dcp"), "--to", "dcp", "--layout", "dp=3")
    if way == "hdf5":
        through = convert(through, str(tmp_path / "all.h5"))
    mesh = f"dp={case.target.dp},zero={case.target.zero},ep={case.target.ep}"
    dtype = ("--dtype", "bf16") if "bf16" in case.program else ()
    root = convert(through, str(tmp_path / "back"), "--to", "deepspeed", "--layout", mesh, *dtype)
    same_fragments = case.source.tp == case.target.tp
    found = trainer.run(case.program, case.target, load=root, steps=STEPS_AFTER, truth=truth if same_fragments else "")
    if same_fragments:
        assert not state_differences(truth, source.truth)
    assert not fact_differences(found["facts"], source.saved["facts"])
    assert not differing(found["losses"], source.resumed["losses"], tolerance(case))


@pytest.mark.parametrize("name", ["dcp_fsdp2_adamw", "dcp_fsdp2_flat_optim", "dcp_hsdp", "dcp_tp_fsdp2"])
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_reads_what_fsdp_saved(name, stage, tmp_path):
    """Its own zero_to_fp32 gives the parameters that FSDP had."""
    source = os.path.join(DATA, "torch", name)
    loose = ["--drop", "extra.*"] if name == "dcp_fsdp2_adamw" else []  # of its program's own
    root = convert(os.path.join(source, "ckpt"), str(tmp_path / "out"), "--to", "deepspeed", "--layout", f"dp=3,zero={stage}", *loose)
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_fp32_state_dict_from_zero_checkpoint(root)
    expected = expected_tensors(os.path.join(source, "expected.safetensors"))
    trained = {key[len("model."):]: value for key, value in expected.items() if key.startswith("model.") and value.is_floating_point()}
    assert trained.keys() <= found.keys()
    for key, value in trained.items():
        assert raw_bytes(found[key].contiguous()) == raw_bytes(value), key


def test_narrow_weights_are_no_masters(out):
    message = refused(os.path.join(DATA, "torch", "dcp_fsdp2_bf16_two_files_per_rank", "ckpt"), out, "--to", "deepspeed", "--states",
                      "param")
    assert "no fp32 masters" in message and "--missing zero" in message


def test_what_deepspeed_has_no_place_for_is_told(tmp_path):
    """The step of torchtitan's train_state is a tensor, and becomes DeepSpeed's."""
    model, optim = trained()
    weights, states = get_state_dict(model, optim)
    for state in states["state"].values():
        state["step"] = int(state["step"])
    state = {"model": weights, "optimizer": states, "ema": {"a": torch.ones(2)}, "train_state": {"step": torch.tensor(7)}}
    source = save(state, tmp_path / "in")
    middle = convert(source, str(tmp_path / "middle.h5"))
    for way, what in ((source, "1 tensor (ema.a)"), (middle, "1 tensor (ema.a)")):
        root = str(tmp_path / f"{os.path.basename(way)}-out")
        ran = uckpt("convert", way, root, "--to", "deepspeed-universal")
        assert ran.error == f"uckpt: warning: left out, since there is a place for a model and its optimizer alone: {what}\n"
        assert os.path.isdir(os.path.join(root, "global_step7_universal"))
    source = save({**state, "lr_scheduler": {"last_epoch": 7}}, tmp_path / "more")
    ran = uckpt("convert", source, str(tmp_path / "out"), "--to", "deepspeed", "--layout", "dp=2,zero=2", "--drop", "ema.*")
    assert "alone: 1 object (lr_scheduler.last_epoch)" in ran.error


def test_two_models_with_an_optimizer_each(tmp_path, out):
    """Of the same names: each optimizer's states are those of the model beside it, and DeepSpeed has one optimizer."""
    parts = {}
    for name in ("gen", "disc"):
        model, optim = trained()
        weights, states = get_state_dict(model, optim)
        parts[name] = {"model": weights, "optim": states}
        parts[name]["optim"]["state"]["2.weight"]["exp_avg"] += len(name)
    source = save(parts, tmp_path / "in")
    convert(source, out)
    with Consolidated(out) as file:
        assert not differences((name, file.dataset("exp_avg", f"{name}.model.2.weight"),
                                part["optim"]["state"]["2.weight"]["exp_avg"], {}) for name, part in parts.items())
    message = refused(source, str(tmp_path / "ds"), "--to", "deepspeed", "--layout", "dp=2,zero=2")
    assert "parameter groups of one optimizer" in message and "several" in message


@pytest.mark.parametrize("kind", ["megatron", "megatron-core"])
def test_what_megatron_has_no_place_for_is_told(kind, tmp_path):
    model = {}
    for path in Path(DATA, "torch/hf_llama_gqa/model").glob("*.safetensors"):
        model.update(load_file(path))
    source = save({"model": model, "ema": {"a": torch.ones(2)}, "lr_scheduler": {"last_epoch": 7}}, tmp_path / "in")
    ran = uckpt("convert", source, str(tmp_path / "out"), "--to", kind, "--layout", "tp=2", "--set", "g=2", "--set", "r=2")
    assert "alone: 1 tensor (ema.a) and 1 object (lr_scheduler.last_epoch)" in ran.error and ran.code == 0


def test_flattened_options_make_groups(tmp_path, out):
    """torchtitan's form; a consolidated file does not keep the order of the state dict, which flat buffers need."""
    source = os.path.join(DATA, "torch", "dcp_fsdp2_flat_optim", "ckpt")
    root = convert(source, str(tmp_path / "deepspeed"), "--to", "deepspeed", "--layout", "dp=2,zero=2")
    with open(os.path.join(root, "latest")) as file:
        saved = os.path.join(root, file.read(), "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    groups = torch.load(saved, weights_only=False)["optimizer_state_dict"]["base_optimizer_state"]["param_groups"]
    assert [(g["lr"], tuple(g["betas"])) for g in groups] == [(0.003, (0.9, 0.95))]
    middle = convert(source, str(tmp_path / "middle.h5"))
    assert "in which order the program registers its parameters" in refused(middle, out, "--to", "deepspeed")
