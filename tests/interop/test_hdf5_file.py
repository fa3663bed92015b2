"""The consolidated file itself: what h5py sees, digests, and our own reading of it."""
import os

import h5py
import numpy as np
import pytest
import torch

from common import DATA, Consolidated, convert, stored_bytes, uckpt
from crc64 import crc64

ZERO1 = os.path.join(DATA, "deepspeed/zero1-dp2/ckpt")
SOURCES = [ZERO1, os.path.join(DATA, "deepspeed/bf16-zero3-dp2/ckpt"), os.path.join(DATA, "torch/pt_dtypes/zip.pt"),
           os.path.join(DATA, "torch/pt_shapes/zip.pt"), os.path.join(DATA, "torch/hf_llama_gqa/model")]


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_root_attributes(out):
    convert(ZERO1, out)
    with h5py.File(out, "r") as file:
        attributes = {key: text(value) for key, value in file.attrs.items()}
        assert attributes["format"] == "universal-checkpoint"
        assert {"version", "created_by", "iteration"} <= set(attributes)
        assert attributes["iteration"] == "4"


def test_module_dtype_is_kept(out):
    convert(os.path.join(DATA, "deepspeed/bf16-zero2-dp2/ckpt"), out)
    with Consolidated(out) as file:
        dataset = file.dataset("fp32", "emb.weight")
        assert dataset.dtype == np.float32 and text(dataset.attrs["module_dtype"]) == "bf16"
        assert file.dataset("param", "emb.weight") is None, "a weight equal to its rounded master is not stored again"


def test_bfloat16_is_a_real_type(tmp_path, out):
    path, weight = str(tmp_path / "in.pt"), torch.randn(3, 5).bfloat16()
    torch.save({"w": weight}, path)
    convert(path, out)
    with Consolidated(out) as file:
        dataset = file.plain("w")
        kind = dataset.id.get_type()
        assert kind.get_size() == 2 and kind.get_fields() == (15, 7, 8, 0, 7) and kind.get_ebias() == 127
        assert np.array_equal(dataset[()].astype(np.float32), weight.float().numpy())


@pytest.mark.parametrize("source", SOURCES)
def test_every_dataset_reads(source, out):
    convert(source, out)
    seen = []
    with h5py.File(out, "r") as file:
        file.visititems(lambda name, node: seen.append((name, node[()])) if isinstance(node, h5py.Dataset) else None)
    assert len(seen) > 3


@pytest.mark.parametrize("source", SOURCES)
def test_digests(source, out):
    convert(source, out)
    with Consolidated(out) as file:
        rows = file.file["digest"][()]
        named = {text(row[0]): int(row[1]) for row in rows}
        assert len(named) == len(rows)
        addresses = {file.address(path) for path in named}
        assert len(addresses) == len(named), "a tied tensor has one digest"
        for path in file.paths():
            assert file.address(path) in addresses, f"{path} has no digest"
        for path, digest in named.items():
            assert digest == crc64(stored_bytes(file.file[path])), path


def test_tied_parameters_are_hard_links(out):
    convert(ZERO1, out)
    with Consolidated(out) as file:
        assert file.address("fp32/head.weight") == file.address("fp32/emb.weight")


def test_objects_keep_the_original_pickle(out):
    convert(ZERO1, out)
    with Consolidated(out) as file:
        assert any("mp_rank_00_model_states.pt" in origin for origin in file.objects())
        kept = []
        file.file["objects"].visititems(
            lambda name, node: kept.append(node) if isinstance(node, h5py.Dataset) and not name.endswith("/json")
            else None)
        assert kept and all(bytes(node[()].tobytes()[:1]) == b"\x80" for node in kept), "not a pickle"


@pytest.mark.parametrize("source", SOURCES)
def test_round_trip(source, out):
    """Our file is an input too: converting it again changes nothing."""
    convert(source, out)
    again = out.replace("out.h5", "again.h5")
    convert(out, again)
    with Consolidated(out) as one, Consolidated(again) as two:
        assert one.paths() == two.paths()
        for path in one.paths():
            a, b = one.file[path], two.file[path]
            assert a.shape == b.shape and a.id.get_type() == b.id.get_type() and stored_bytes(a) == stored_bytes(b), path
        assert one.objects() == two.objects()
        links = [(p, q) for p in one.paths() for q in one.paths() if p < q and one.address(p) == one.address(q)]
        assert all(two.address(p) == two.address(q) for p, q in links)


def test_extract_from_a_consolidated_file(tmp_path, out):
    convert(ZERO1, out)
    with Consolidated(out) as file:
        for path in ("fp32/emb.weight", "exp_avg/norm.bias", "buffer/flags", "step/gain"):
            npy = str(tmp_path / "x.npy")
            assert uckpt("extract", out, path, "-o", npy, "-f").code == 0
            assert np.array_equal(np.load(npy), file.file[path][()])


def test_states_and_globs(out):
    convert(ZERO1, out, "--states", "fp32,exp_avg", "--select", "blocks.*", "--drop", "*.bias")
    with Consolidated(out) as file:
        paths = {p for p in file.paths() if not p.startswith("objects")}
        assert paths and all(p.split("/")[0] in ("fp32", "exp_avg") for p in paths)
        assert all("blocks." in p and not p.endswith(".bias") for p in paths)
        assert "fp32/blocks.0.fc1.weight" in paths


def test_foreign_hdf5_is_read(tmp_path, out):
    """A plain h5py file with groups, chunks and gzip."""
    path, rng = str(tmp_path / "foreign.h5"), np.random.default_rng(1)
    values = {"a": rng.random((5, 7), np.float32), "group/b": rng.integers(0, 9, (40, 30)), "group/sub/c": np.float64(2.5)}
    with h5py.File(path, "w") as file:
        file["a"], file["group/sub/c"] = values["a"], values["group/sub/c"]
        file.create_dataset("group/b", data=values["group/b"], chunks=(16, 16), compression="gzip", shuffle=True)
    listed = uckpt("ls", "-a", path)
    assert listed.code == 0 and all(name.split("/")[-1] in listed.text for name in values)
    npy = str(tmp_path / "x.npy")
    if uckpt("extract", path, "a", "-o", npy).code == 0:
        assert np.array_equal(np.load(npy), values["a"])


def test_a_further_link_to_a_group_is_said(tmp_path):
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["x/a"] = np.ones(3, "f4")
        file["y"] = file["x"]
    result = uckpt("convert", path, str(tmp_path / "o.pt"))
    assert result.code == 0 and "`y` is a further link to a group" in result.error


def test_what_needs_a_newer_library_is_listed(tmp_path):
    path, out = str(tmp_path / "x.h5"), str(tmp_path / "o.h5")
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("a", data=np.ones((3, 3), "f4"), chunks=(1, 3), compression="gzip")
        file["b"] = np.full(3, 2, "f4")
    result = uckpt("convert", "-q", path, out)
    if result.code == 0:
        pytest.skip("the library is new enough")
    assert "needs a newer one" in result.error and "damaged" not in result.error, result.error
    convert(path, out, "--drop", "a")
    with Consolidated(out) as file:
        assert file.plain("b")[()].tolist() == [2, 2, 2]


def test_too_little_memory_for_the_library_is_said(tmp_path):
    path, out = str(tmp_path / "x.h5"), str(tmp_path / "o.pt")
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=np.zeros((1000, 1000), "f4"), chunks=(3, 5), compression="gzip", compression_opts=1)
    result = uckpt("convert", "-q", "--max-mem", "64M", path, out)
    assert result.code == 0 or "--max-mem" in result.error, result.error


def test_too_little_memory_for_threads_is_said(tmp_path):
    torch.save({f"layers.{i}.w": torch.tensor(float(i)) for i in range(60000)}, tmp_path / "in.pt")
    result = uckpt("convert", "-q", "--max-mem", "64M", str(tmp_path / "in.pt"), str(tmp_path / "o.h5"))
    assert result.code == 0 or "--max-mem" in result.error and "internal" not in result.error, result.error
