"""Digests against this file's own, over the truth; and damage of every byte of a consolidated file."""
import hashlib
import json
import os
import random

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from common import DATA, convert, refused, tool, uckpt
from crc64 import crc64


def sums(path, *flags):
    result = uckpt("sum", path, *flags)
    assert result.code == 0, result.error
    lines = [line.split("  ", 3) for line in result.text.splitlines() if not line.startswith("#")]
    return {path: (digest, dtype, shape) for digest, dtype, shape, path in lines}


def raw_tensors(path):
    """The bytes of each tensor of a safetensors file, of whatever type."""
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    return {name: data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}


@pytest.fixture
def weights(tmp_path):
    rng = np.random.default_rng(5)
    tensors = {f"layers.{i}.w": rng.standard_normal((7 + i, 3 * i), dtype=np.float32) for i in range(5)}
    tensors.update(a=rng.integers(-9, 9, (5, 1, 2)), b=rng.random(()) > 0.5, half=rng.random(33).astype(np.float16))
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    save_file(tensors, tmp_path / "in.safetensors")
    return tensors, str(tmp_path / "in.safetensors")


def test_digests_are_those_of_the_bytes(weights):
    tensors, path = weights
    assert {name: digest for name, (digest, *_) in sums(path).items()} == {
        f"weight/{name}": f"crc64:{crc64(value.tobytes()):016x}" for name, value in tensors.items()}
    assert {name: digest for name, (digest, *_) in sums(path, "--sha256").items()} == {
        f"weight/{name}": f"sha256:{hashlib.sha256(value.tobytes()).hexdigest()}" for name, value in tensors.items()}


@pytest.mark.parametrize("name,keep", [
    ("deepspeed/zero1-dp2", "fp32/"), ("deepspeed/zero3-dp2", "fp32/"), ("deepspeed/bf16-zero2-dp2", "fp32/"),
    ("deepspeed/moe-ep2-zero1-dp4", "fp32/"), ("torch/pt_shapes", None)])
def test_digests_of_the_truth(name, keep):
    folder = os.path.join(DATA, name)
    source = os.path.join(folder, "zip.pt" if keep is None else "ckpt")
    truth = raw_tensors(os.path.join(folder, "expected.safetensors"))
    found = sums(source)
    compared = 0
    for key, value in truth.items():
        path = f"weight/{key[len(keep):]}" if keep and key.startswith(keep) else f"weight/{key}" if keep is None else key
        if path in found:
            assert found[path][0] == f"crc64:{crc64(value):016x}", path
            compared += 1
    assert compared > len(truth) / 2


@pytest.mark.parametrize("to,flags", [("safetensors", ["--states", "fp32"]), ("dcp", []), ("deepspeed-universal", []),
                                      ("deepspeed", ["--layout", "dp=3,zero=3"]), ("deepspeed", ["--layout", "dp=2,zero=1"])])
def test_a_manifest_says_what_is_written(to, flags, tmp_path):
    source = os.path.join(DATA, "deepspeed/zero2-dp3/ckpt")
    out, manifest = str(tmp_path / "out"), str(tmp_path / "manifest")
    result = uckpt("convert", "-q", "--to", to, "--manifest", manifest, *flags, source, out)
    assert result.code == 0, result.error
    assert uckpt("sum", out).text == open(manifest).read()
    assert uckpt("verify", "-q", out, "--against", manifest).code == 0


ANY = [("m.h5", []), ("m.pt", []), ("m.safetensors", []), ("m.safetensors", ["--dtype", "bf16"]), ("m", ["--to", "dcp"]),
       ("m", ["--to", "dcp-hf"])]
OF_MASTERS = [("m", ["--to", "deepspeed", "--layout", "dp=3,zero=3"]), ("m", ["--to", "deepspeed-universal"])]


def trained(path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


def with_empty(path):
    torch.save({"a": torch.empty(0, 3), "b": torch.ones(2)}, path)


def tied(path):
    both = torch.randn(4)
    torch.save({"a": both, "b": both, "c": torch.ones(3)}, path)


WITH_MASTERS = ["deepspeed/zero2-dp3/ckpt", "deepspeed/bf16-zero2-dp2/ckpt", "torch/dcp_fsdp2_adamw/ckpt"]
WEIGHTS_ALONE = ["torch/hf_llama_tied/model", trained, with_empty, tied]


@pytest.mark.parametrize("source,name,flags", [(s, *t) for s in WITH_MASTERS for t in ANY + OF_MASTERS] +
                         [(s, *t) for s in WEIGHTS_ALONE for t in ANY])
def test_every_output_fits_its_own_manifest(source, name, flags, tmp_path):
    path = os.path.join(DATA, source) if isinstance(source, str) else str(tmp_path / "in.pt")
    if callable(source):
        source(path)
    out, manifest = str(tmp_path / name), str(tmp_path / "manifest")
    result = uckpt("convert", "-q", path, out, "--manifest", manifest, *flags)
    assert result.code == 0, result.error
    result = uckpt("verify", "-q", out, "--against", manifest)
    assert result.code == 0, result.error
    assert uckpt("sum", out).text == open(manifest).read()


def test_what_is_refused_leaves_no_manifest(tmp_path, out):
    manifest = str(tmp_path / "manifest")
    assert "no fp32 masters" in refused(os.path.join(DATA, WEIGHTS_ALONE[0]), out, "--manifest", manifest, *OF_MASTERS[0][1])
    assert not os.path.exists(manifest)


def test_a_cast_is_digested_as_written(weights, tmp_path):
    _, path = weights
    out, manifest = str(tmp_path / "out.safetensors"), str(tmp_path / "manifest")
    convert(path, out, "--dtype", "bf16", "--manifest", manifest)
    assert uckpt("sum", out).text == open(manifest).read()


def test_every_byte_of_a_consolidated_file_is_covered(tmp_path):
    """A flipped bit in any tensor or object is found by verify; elsewhere it is refused, or changes nothing."""
    source, out = os.path.join(DATA, "deepspeed/zero1-dp2/ckpt"), str(tmp_path / "out.h5")
    convert(source, out)
    whole = uckpt("sum", out).text
    data = open(out, "rb").read()
    rng = random.Random(11)
    found = 0
    for _ in range(150):
        at = rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        bad = str(tmp_path / "bad.h5")
        with open(bad, "wb") as file:
            file.write(damaged)
        result = uckpt("verify", bad)
        assert result.code in (0, 1) and not result.problems()
        found += result.code
        if result.code == 0:
            assert uckpt("sum", bad).text == whole, f"byte {at} is not covered"
    assert found > 50


def test_against_another_layout(tmp_path):
    source = os.path.join(DATA, "deepspeed/zero2-dp3/ckpt")
    other = str(tmp_path / "other")
    assert uckpt("convert", "-q", "--to", "dcp", source, other).code == 0
    result = uckpt("verify", "--json", other, "--against", source)
    report = json.loads(result.text)
    assert result.code == 0 and report["right"] and report["against"] == report["tensors"] == 125


def test_replicas_that_differ_are_told(tmp_path):
    """What convert refuses for one tensor, verify lists for all."""
    source = tmp_path / "ckpt"
    tool.shutil.copytree(os.path.join(DATA, "deepspeed/zero1-dp2/ckpt"), source)
    bad = next(source.rglob("zero_pp_rank_1_mp_rank_00_optim_states.pt"))
    good = bad.with_name(bad.name.replace("rank_1", "rank_0"))
    bad.write_bytes(good.read_bytes())
    assert uckpt("verify", str(source)).code == 1


@pytest.mark.parametrize("kind", ["h5", "safetensors"])
def test_a_digest_of_the_input_is_checked(kind, tmp_path):
    """A flipped bit in what another program could not know to be damaged; nothing is written over it."""
    weight = torch.arange(30000.).reshape(100, 300)
    torch.save({"a": weight, "b": torch.arange(7.)}, tmp_path / "in.pt")
    bad = convert(str(tmp_path / "in.pt"), str(tmp_path / f"in.{kind}"))
    data = bytearray(open(bad, "rb").read())
    data[data.find(weight.numpy().tobytes()[400:800]) + 5] ^= 8
    with open(bad, "wb") as file:
        file.write(data)
    for name, *flags in [("o.pt",), ("o.h5",), ("o.safetensors",), ("o", "--to", "dcp"), ("o", "--to", "dcp-hf"),
                         ("o.safetensors", "--dtype", "bf16"), ("o.pt", "--select", "a"), ("o.h5", "-j", "1"),
                         ("o", "--to", "dcp", "--layout", "dp=3"), ("o.npy", "--trust-copies", "--to", "torch")]:
        message = refused(bad, str(tmp_path / name), *flags)
        assert "expected digest crc64:" in message and "/a" in message, message
        os.makedirs(tmp_path / "kept", exist_ok=True)
        uckpt("convert", "-q", "-f", "--no-crc", bad, str(tmp_path / "kept" / name), *flags)
    assert convert(bad, str(tmp_path / "b.pt"), "--select", "b")
    for verb in ("sum", "verify", "stats"):
        result = uckpt(verb, bad)
        assert result.code == 1 and "digest" in result.error + result.text, verb
    assert uckpt("extract", bad, "a", "-o", str(tmp_path / "a.npy")).code == 1
