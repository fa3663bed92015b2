"""`--to torch`: torch.load must see the tree that the file had, and a plain state dict of anything else."""
import collections
import glob
import json
import os
import subprocess

import numpy as np
import pytest
import torch

import native
from common import DATA, convert, expected_tensors, raw_bytes, refused, uckpt

# Saved in a way that no conversion reads: sparse and quantised tensors, compressed members, damage.
NOT_READ = ("pt_damaged", "pt_sparse", "deflated.pt")


def fixtures():
    found = sorted(glob.glob(os.path.join(DATA, "torch", "pt_*", "*.pt")))
    return [os.path.relpath(path, DATA) for path in found if not any(word in path for word in NOT_READ)]


def load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


def save(tree, tmp_path, name="in.pt"):
    path = str(tmp_path / name)
    torch.save(tree, path)
    return path


def check_zip(path):
    result = subprocess.run(["unzip", "-tqq", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def ways(source, tmp_path, *flags):
    """The results of writing `source` at once and by way of HDF5."""
    one, middle, two = (str(tmp_path / name) for name in ("one.pt", "middle.h5", "two.pt"))
    convert(source, one, *flags)
    convert(source, middle)
    convert(middle, two, *flags)
    return [one, two]


def typed(tree):
    """torch storages as what they hold: they compare by identity."""
    if isinstance(tree, (torch.UntypedStorage, torch.TypedStorage)):
        return {"storage": type(tree).__name__, "values": list(tree)}
    if isinstance(tree, dict):
        out = collections.OrderedDict() if isinstance(tree, collections.OrderedDict) else {}
        for key, value in tree.items():
            out[key] = typed(value)
        return out
    if type(tree) in (list, tuple):
        return type(tree)(typed(value) for value in tree)
    return tree


def check_equal(source, result):
    check_zip(result)
    a, b = load(source), load(result)
    assert not native.differences(typed(a), typed(b))
    assert native._aliases(a) == native._aliases(b)
    assert container_types(a) == container_types(b)
    return b


def container_types(tree):
    if isinstance(tree, dict):
        return (type(tree), {key: container_types(value) for key, value in tree.items()},
                container_types(getattr(tree, "_metadata", None)))
    if isinstance(tree, (list, tuple)):
        return type(tree), [container_types(value) for value in tree]
    return type(tree)


@pytest.mark.parametrize("path", fixtures())
def test_fixture_comes_back(path, tmp_path):
    source = os.path.join(DATA, path)
    # torch writes untyped storages to the stream before 1.6, but cannot read them back: the zip has the same tree.
    truth = source.replace("legacy_stream", "zip") if "pt_dtypes" in path else source
    for result in ways(source, tmp_path):
        check_equal(truth, result)


def test_containers_and_wrappers(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    shared = torch.randn(4)
    parameter = torch.nn.Parameter(torch.randn(2))
    parameter.tensor_model_parallel = True
    tree = {"model": module.state_dict(), "parameter": parameter, "frozen": torch.nn.Parameter(shared, False),
            "grad": torch.randn(2, requires_grad=True), "shared": [shared, (shared, {"deep": shared})],
            "counts": collections.Counter("abca"), "default": collections.defaultdict(list, {"a": [shared]}),
            "storage": torch.arange(3).untyped_storage(), "empty": torch.empty(0, 3), "scalar": torch.tensor(2.5),
            "fp8": torch.randn(4).to(torch.float8_e4m3fn), "u16": torch.tensor([1, 65535], dtype=torch.uint16),
            "conj": torch.randn(2, dtype=torch.complex64).conj(), "mask": torch.tensor([True, False])}
    source = save(tree, tmp_path)
    for result in ways(source, tmp_path):
        back = check_equal(source, result)
        assert back["model"]._metadata == tree["model"]._metadata
        assert back["grad"].requires_grad and not back["frozen"].requires_grad
        assert back["parameter"].tensor_model_parallel is True


def test_views_get_storages_of_their_own(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    source = save({"base": base, "row": base[1], "turned": base.t()}, tmp_path)
    for result in ways(source, tmp_path):
        back = load(result)
        assert all(torch.equal(back[key], value) for key, value in load(source).items())
        assert len({value.untyped_storage().data_ptr() for value in back.values()}) == 3
        assert all(value.is_contiguous() for value in back.values())


def test_what_is_dropped_is_gone(tmp_path):
    tied = torch.randn(3)
    source = save({"a": torch.randn(2), "emb": tied, "head": tied, "list": [torch.ones(1), 5],
                   "nested": collections.OrderedDict(x=torch.ones(2), y=7)}, tmp_path)
    for result in ways(source, tmp_path, "--drop", "head", "--drop", "list.0", "--drop", "nested.x"):
        check_zip(result)
        back = load(result)
        assert list(back) == ["a", "emb", "list", "nested"]
        assert torch.equal(back["emb"], tied)
        assert back["list"] == [None, 5]
        assert back["nested"] == {"y": 7} and type(back["nested"]) is collections.OrderedDict


def test_what_is_dropped_of_shared_parts(tmp_path):
    part = {"x": torch.ones(1), "y": torch.zeros(1)}
    source = save({"p": part, "q": part, "array": np.arange(3.0), "kept": np.arange(4.0)}, tmp_path)
    for result in ways(source, tmp_path, "--drop", "p.x", "--drop", "q.x", "--drop", "array"):
        back = load(result)
        assert list(back) == ["p", "q", "kept"] and back["p"] is back["q"]
        assert list(back["p"]) == ["y"] and np.array_equal(back["kept"], np.arange(4.0))


def test_a_tensor_alone(tmp_path):
    source = save(torch.arange(5), tmp_path)
    for result in ways(source, tmp_path):
        assert torch.equal(load(result), torch.arange(5))


def test_attributes_that_are_lost_are_told(tmp_path):
    tensor = torch.ones(3)
    tensor.mark = 1
    source, out = save({"t": tensor}, tmp_path), str(tmp_path / "out.pt")
    result = uckpt("convert", source, out)
    assert result.code == 0 and "the Python attributes of 1 tensor" in result.error
    assert torch.equal(load(out)["t"], tensor)


def test_sparse_is_written_around(tmp_path):
    source = save({"a": torch.ones(2), "sparse": torch.eye(3).to_sparse(), "epoch": 3}, tmp_path)
    out = str(tmp_path / "out.pt")
    convert(source, out, "--drop", "sparse")
    assert list(load(out)) == ["a", "epoch"]


def test_types_are_cast(tmp_path):
    tree = {"w": torch.randn(5), "tied": None, "n": torch.arange(3)}
    tree["tied"] = tree["w"]
    source = save(tree, tmp_path)
    for result in ways(source, tmp_path, "--dtype", "bf16"):
        back = load(result)
        assert torch.equal(back["w"], tree["w"].bfloat16()) and torch.equal(back["n"], tree["n"])
        assert back["w"].data_ptr() == back["tied"].data_ptr()


def deepspeed_fixtures():
    return ["zero1-dp2", "zero2-tp2-dp1-ucp04", "zero3-dp2", "bf16-zero1-dp2", "pipe-pp2-tp2-dp1"]


@pytest.mark.parametrize("name", deepspeed_fixtures())
def test_deepspeed_becomes_a_state_dict(name, tmp_path):
    folder = os.path.join(DATA, "deepspeed", name)
    truth = expected_tensors(os.path.join(folder, "expected.safetensors"))
    with open(os.path.join(folder, "expected.json")) as file:
        shared = json.load(file).get("shared") or {}
    weights = {key.split("/", 1)[1]: value for key, value in truth.items() if key.startswith("fp32/")}
    assert weights
    for result in ways(os.path.join(folder, "ckpt"), tmp_path):
        check_zip(result)
        loaded = torch.load(result, weights_only=True)
        assert type(loaded) is collections.OrderedDict
        for key, value in weights.items():
            assert loaded[key].dtype == value.dtype and loaded[key].shape == value.shape, key
            assert raw_bytes(loaded[key]) == raw_bytes(value), key
        for alias, stored in shared.items():
            assert loaded[alias].data_ptr() == loaded[stored].data_ptr(), alias


def test_states_of_deepspeed(tmp_path):
    out = str(tmp_path / "out.pth")
    convert(os.path.join(DATA, "deepspeed", "zero1-dp2", "ckpt"), out, "--states", "fp32,exp_avg")
    loaded = torch.load(out, weights_only=True)
    assert {key.split("/")[0] for key in loaded} == {"fp32", "exp_avg"}


def test_safetensors_and_back(tmp_path):
    from safetensors.torch import load_file, save_file
    source, out, again = (str(tmp_path / name) for name in ("in.safetensors", "pytorch_model.bin", "again.safetensors"))
    tensors = {"a.weight": torch.randn(2, 3), "b": torch.arange(4), "c": torch.randn(3).bfloat16()}
    save_file(tensors, source)
    convert(source, out)
    check_zip(out)
    loaded = torch.load(out, weights_only=True)
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items()) and len(loaded) == 3
    convert(out, again)
    assert all(torch.equal(value, tensors[key]) for key, value in load_file(again).items())


def test_a_name_that_no_archive_can_have(tmp_path):
    source = save({"a": torch.ones(1)}, tmp_path)
    assert "cannot be called so" in refused(source, str(tmp_path / "a:b.pt"))


def test_a_type_for_either_name_of_a_tied_tensor(tmp_path):
    both = torch.randn(4, 3)
    torch.save({"a": both, "b": both, "c": torch.ones(2)}, tmp_path / "in.pt")
    for names, dtype in ((["bf16:b"], torch.bfloat16), (["bf16:a"], torch.bfloat16), (["fp16:b", "bf16:a"], torch.float16)):
        flags = [word for name in names for word in ("--dtype", name)]
        convert(str(tmp_path / "in.pt"), str(tmp_path / "o.pt"), "-f", *flags)
        found = torch.load(tmp_path / "o.pt")
        assert found["a"].dtype == found["b"].dtype == dtype and found["c"].dtype == torch.float32
        assert torch.equal(found["b"], both.to(dtype))
