"""Checkpoints written by DeepSpeed right now, against what the live engine held when it saved them."""
import os

import pytest

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
