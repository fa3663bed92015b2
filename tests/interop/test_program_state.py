"""What a program keeps beside its weights survives a conversion as it was: options that are tensors, the state of each rank."""
import glob
import os
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from common import DATA, convert, refused

GROUPS = {"zero1-dp2": "base_optimizer_state", "zero3-dp2": "optimizer_state_dict",
          "bf16opt-zero1-dp2": "base_optimizer_state"}


def load(path):
    return torch.load(path, weights_only=False)


def edited(tmp_path, kind, pattern, edit):
    """A checkpoint of DeepSpeed's whose files were changed as a program might have written them."""
    source = str(tmp_path / "edited")
    shutil.copytree(os.path.join(DATA, "deepspeed", kind, "ckpt"), source)
    for path in sorted(glob.glob(os.path.join(source, "*", pattern))):
        value = load(path)
        edit(path, value)
        torch.save(value, path)
    return source


def groups_of(folder, kind):
    found = sorted(glob.glob(os.path.join(folder, "*", "*optim_states.pt")))
    assert found
    return [group for path in found for group in load(path)["optimizer_state_dict"][GROUPS[kind]]["param_groups"]]


def with_tensor_rates(tmp_path, kind):
    def edit(_, value):
        for number, group in enumerate(value["optimizer_state_dict"][GROUPS[kind]]["param_groups"]):
            group["lr"] = torch.tensor(0.25 + number)
    return edited(tmp_path, kind, "*optim_states.pt", edit)


@pytest.mark.parametrize("kind", GROUPS)
def test_learning_rates_that_are_tensors(kind, tmp_path):
    source = with_tensor_rates(tmp_path, kind)
    ways = {"direct": [source], "by HDF5": [convert(source, str(tmp_path / "all.h5"))]}
    ways["by DCP"] = [convert(source, str(tmp_path / "dcp"), "--to", "dcp")]
    dcp_to_torch_save(ways["by DCP"][0], str(tmp_path / "dcp.pt"))
    rates = [group["lr"] for group in load(str(tmp_path / "dcp.pt"))["optim"]["param_groups"]]
    assert rates and all(torch.equal(rate, torch.tensor(0.25 + g)) for g, rate in enumerate(rates)), rates
    number = len(rates)
    for way, (read,) in ways.items():
        for stage in (1, 2, 3):
            out = convert(read, str(tmp_path / f"{way}-{stage}"), "--to", "deepspeed", "--layout", f"dp=3,zero={stage}")
            name = {1: "base_optimizer_state", 2: "base_optimizer_state", 3: "optimizer_state_dict"}[stage]
            for path in glob.glob(os.path.join(out, "*", "*optim_states.pt")):
                written = load(path)["optimizer_state_dict"]
                groups = written.get(name, written.get("base_optimizer_state"))["param_groups"]
                assert len(groups) == number
                for g, group in enumerate(groups):
                    assert torch.equal(group["lr"], torch.tensor(0.25 + g)), (way, stage, group["lr"])
    universal = convert(source, str(tmp_path / "universal"), "--to", "deepspeed-universal")
    state, = glob.glob(os.path.join(universal, "*", "zero", "optimizer_state.pt"))
    groups = load(state)["param_groups"]
    assert [float(group["lr"]) for group in groups] == [0.25 + g for g in range(number)]


@pytest.mark.parametrize("to", [("deepspeed", "--layout", "dp=2,zero=2"), ("dcp",)], ids=lambda to: to[0])
def test_an_option_is_not_left_out(to, tmp_path):
    source = with_tensor_rates(tmp_path, "zero1-dp2")
    (tmp_path / "out").mkdir()
    message = refused(source, str(tmp_path / "out" / "o"), "--to", *to, "--drop", "other/**")
    assert "param_groups.0.lr" in message and "--drop must spare it" in message


def test_each_rank_keeps_its_own_state(tmp_path):
    def edit(path, value):
        value["random"] = {"state": torch.full((3,), int("rank_1_" in path)), "same": torch.arange(2)}
    source = edited(tmp_path, "zero3-dp2", "*model_states.pt", edit)
    for way in ("direct", "by HDF5"):
        read = source if way == "direct" else convert(source, str(tmp_path / "all.h5"))
        out = convert(read, str(tmp_path / way), "--to", "deepspeed", "--layout", "dp=2,zero=3")
        for rank in (0, 1):
            path, = glob.glob(os.path.join(out, "*", f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"))
            state = load(path)["random"]
            assert state["state"].tolist() == [rank] * 3 and state["same"].tolist() == [0, 1], (way, rank)


@pytest.mark.parametrize("to", [("deepspeed", "--layout", "dp=2,zero=2"), ("deepspeed-universal",)], ids=lambda to: to[0])
def test_keys_that_are_no_text(to, tmp_path):
    own = {5: "a", (1, 2): "b", None: "c", 1.5: torch.arange(3)}
    source = edited(tmp_path, "zero1-dp2", "*model_states.pt", lambda _, value: value.update(own))
    out = convert(source, str(tmp_path / "out"), "--to", *to)
    model = load(glob.glob(os.path.join(out, "*", "mp_rank_00_model_states.pt"))[0])
    assert all(model[key] == own[key] for key in (5, (1, 2), None)) and torch.equal(model[1.5], own[1.5])


@pytest.mark.parametrize("to", [("deepspeed", "--layout", "dp=2,zero=2"), ("deepspeed-universal",)], ids=lambda to: to[0])
def test_a_parameter_that_never_had_states(to, tmp_path):
    """An optimizer may list parameters that were frozen before its first step: they are frozen in DeepSpeed, too."""
    weights = {name: torch.rand(5, 3) for name in ("a", "b", "frozen")}
    states = {name: {"step": torch.tensor(3.0), "exp_avg": torch.rand(5, 3), "exp_avg_sq": torch.rand(5, 3)} for name in ("a", "b")}
    group = {"params": ["a", "frozen", "b"], "lr": 0.5, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    source = str(tmp_path / "dcp")
    dcp.save({"model": weights, "optim": {"state": states, "param_groups": [group]}}, checkpoint_id=source)
    out = convert(source, str(tmp_path / "out"), "--to", *to)
    path, = glob.glob(os.path.join(out, "*", "mp_rank_00_model_states.pt"))
    model = load(path)
    assert [list(shapes) for shapes in model["param_shapes"]] == [["a", "b"]]
    assert to[0] != "deepspeed" or list(model["frozen_param_shapes"]) == ["frozen"]
    assert torch.equal(model["module"]["frozen"], weights["frozen"])
