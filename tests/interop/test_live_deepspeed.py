"""Checkpoints written by DeepSpeed right now, against what the live engine held when it saved them."""
import glob
import os
import shutil

import pytest
import torch

import deepspeed_kinds as kinds
from common import Consolidated, consolidated_path, convert, differences, expected_tensors, refused, uckpt
from made import make_checkpoints
from test_fixtures import load


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """All kinds, made by one run of the script: DeepSpeed is imported once."""
    folder = tmp_path_factory.mktemp("deepspeed")
    make_checkpoints(folder)
    return folder


@pytest.mark.parametrize("name", kinds.KINDS)
def test_kind(name, made, out):
    folder = str(made / name)
    expected = load(folder, "expected.json")
    tensors = expected_tensors(os.path.join(folder, "expected.safetensors"))
    if kinds.KINDS[name].may_refuse and uckpt("plan", os.path.join(folder, "ckpt"), out).code == 1:
        assert "numbers, not names" in refused(os.path.join(folder, "ckpt"), out)
        return
    convert(os.path.join(folder, "ckpt"), out)
    with Consolidated(out) as file:
        assert not differences((key, file.dataset(*consolidated_path(key)), value, {}) for key, value in tensors.items())
        wrong = [f"{path}: expected {value}, found {found}" for path, value in expected["numbers"].items()
                 if (found := number_of(file, path)) != value]
        assert not wrong
        assert file.file.attrs["iteration"] == expected["step"]


def number_of(file, path):
    """A state that is one number for the whole parameter: a 0-d (or one-element) dataset."""
    dataset = file.dataset(*path.split("/", 1))
    return None if dataset is None else dataset[()].item()


@pytest.mark.parametrize("way", ["direct", "by HDF5"])
@pytest.mark.parametrize("name", ["stage0-adamw", "stage0-sgd", "stage0-bf16", "stage0-tensor-lr", "fp16-stage0"])
def test_groups_without_zero(name, way, made, tmp_path):
    """Without ZeRO groups number their parameters, or have one flat tensor: they and their options go to ZeRO's files."""
    source = str(made / name / "ckpt")
    path, = glob.glob(os.path.join(source, "*", "mp_rank_00_model_states.pt"))
    optimizer = torch.load(path, weights_only=False)["optimizer"]
    expected = optimizer.get("optimizer_state_dict", optimizer)["param_groups"]
    read = source if way == "direct" else convert(source, str(tmp_path / "all.h5"))
    out = convert(read, str(tmp_path / "out"), "--to", "deepspeed", "--layout", "dp=2,zero=1")
    path, = glob.glob(os.path.join(out, "*", "mp_rank_00_model_states.pt"))
    shapes = torch.load(path, weights_only=False)["param_shapes"]
    assert [{len(shape) > 1 for shape in group.values()} for group in shapes] == [{True}, {False}]
    for path in glob.glob(os.path.join(out, "*", "*optim_states.pt")):
        found = torch.load(path, weights_only=False)["optimizer_state_dict"]["base_optimizer_state"]["param_groups"]
        assert [{**group, "params": 0} for group in found] == [{**group, "params": 0} for group in expected]


@pytest.mark.parametrize("flags", [("deepspeed", "--layout", "dp=2,zero=1"), ("deepspeed-universal",)], ids=lambda flags: flags[0])
def test_states_of_other_shapes_have_no_place_in_flat_buffers(flags, made, tmp_path):
    message = refused(str(made / "stage0-adafactor" / "ckpt"), str(tmp_path / "out"), "--to", *flags)
    assert "::col_var/emb.weight: " in message and "expected [31, 13], found [1, 13]" in message


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("name", ["zero1-no-frozen", "zero2-no-frozen", "zero3-no-frozen"])
def test_frozen_parameters_that_were_not_saved(name, zero, made, tmp_path):
    """DeepSpeed has None then, and its loader looks up each of the program's frozen parameters in any list there is."""
    out = convert(str(made / name / "ckpt"), str(tmp_path / "out"), "--to", "deepspeed", "--layout", f"dp=3,zero={zero}")
    for path in glob.glob(os.path.join(out, "*", "*model_states.pt")):
        model = torch.load(path, weights_only=False)
        assert model["frozen_param_shapes"] is None and model["frozen_param_fragments"] is None


def test_weights_beside_an_optimizer_without_names(made, tmp_path):
    """Numbers in another order than the model's tell no names: its weights can be had, and no guess is made for the rest."""
    source = str(tmp_path / "ckpt")
    shutil.copytree(str(made / "stage0-adamw" / "ckpt"), source)
    path, = glob.glob(os.path.join(source, "*", "mp_rank_00_model_states.pt"))
    value = torch.load(path, weights_only=False)
    for group in value["optimizer"]["param_groups"]:
        group["params"].reverse()
    torch.save(value, path)
    (tmp_path / "out").mkdir()
    out = str(tmp_path / "out" / "all.h5")
    message = refused(source, out)
    assert "numbers, not names" in message and "--drop leaves it out" in message
    convert(source, out, "--drop", "other/*.optimizer")
    with Consolidated(out) as file:
        weights = {name: weight for name, weight in value["module"].items() if name.endswith(".weight") and name != "head.weight"}
        assert weights and not differences((f"param/{name}", file.dataset("param", name), weight, {})
                                           for name, weight in weights.items())
