"""torch.save files made on the spot: whatever torch.load reads, uckpt must read bit for bit."""
import random
import sys

import numpy as np
import pytest
import torch

from common import Consolidated, convert, differences, expected_tensors, refused, same_number, look_up, uckpt

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32,
          torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn,
          torch.float8_e5m2]


# torch writes these to the stream before 1.6 as well, but cannot read them back.
NOT_IN_LEGACY = 2


def random_tensor(rng, generator, legacy):
    """A tensor of a random type, and half of the time a view that is not laid out row-major."""
    dtype = rng.choice(DTYPES[:-NOT_IN_LEGACY] if legacy else DTYPES)
    shape = [rng.randint(0 if rng.random() < 0.1 else 1, 6) for _ in range(rng.randint(0, 4))]
    base = torch.randint(0, 256, [*shape, dtype.itemsize], generator=generator, dtype=torch.uint8)
    if dtype == torch.bool:
        base &= 1
    if base.numel() == 0:
        return torch.empty(shape, dtype=dtype)
    t = base.view(dtype).reshape(shape)
    ways = [lambda: t, lambda: t, lambda: t.flatten()[1:], lambda: t.transpose(0, -1), lambda: t[::2],
            lambda: t.expand(3, *t.shape), lambda: t[..., -1]]
    if dtype.is_complex:
        ways.append(lambda: t.conj())
    return rng.choice(ways)() if t.ndim else t


def random_tree(rng, generator, legacy):
    def some():
        return random_tensor(rng, generator, legacy)

    shared = some()
    tree = {f"p{i}.weight": some() for i in range(rng.randint(1, 8))}
    tree["nested"] = {"list": [some(), {"deep": some()}], "tuple": (some(),)}
    tree["parameter"] = torch.nn.Parameter(torch.randn(3, generator=generator))
    tree["again"], tree["first"] = shared, shared
    tree["numbers"] = {"int": rng.randint(-2**40, 2**40), "float": rng.random(), "none": None, "true": True,
                       "text": "naïve \n text"}
    return tree


def flatten(tree, prefix=""):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, (dict, list, tuple)):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("seed", range(30))
def test_random_file(seed, tmp_path, out):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    path, legacy = str(tmp_path / "in.pt"), seed % 5 == 4
    torch.save(random_tree(rng, generator, legacy), path, pickle_protocol=2 + seed % 4,
               _use_new_zipfile_serialization=not legacy)
    loaded = dict(flatten(torch.load(path, weights_only=False)))
    convert(path, out)
    with Consolidated(out) as file:
        tensors = {k: v for k, v in loaded.items() if torch.is_tensor(v)}
        assert not differences((key, file.plain(key), value, {}) for key, value in tensors.items())
        views = list(file.objects().values())
        for key, value in loaded.items():
            if not torch.is_tensor(value):
                assert any(same_number(look_up(view, key)[1], value) for view in views), key


def test_stream_of_a_big_endian_machine(tmp_path, out, monkeypatch):
    """Its header says so, and its storages are little-endian all the same: torch.load does not swap them."""
    monkeypatch.setattr(sys, "byteorder", "big")
    torch.save({"w": torch.randn(3, 5)}, tmp_path / "in.pt", _use_new_zipfile_serialization=False)
    monkeypatch.undo()
    loaded = torch.load(tmp_path / "in.pt")
    convert(tmp_path / "in.pt", out)
    with Consolidated(out) as file:
        assert not differences([("w", file.plain("w"), loaded["w"], {})])


def test_stream_with_a_whole_module(tmp_path, out):
    """Such a stream names the module's class, with its source, in a way of its own."""
    w = torch.randn(3)
    torch.save({"w": w, "net": torch.nn.Linear(2, 2)}, tmp_path / "in.pt", _use_new_zipfile_serialization=False)
    message = refused(tmp_path / "in.pt", out)
    assert "a tensor inside the unknown class torch.nn.modules.linear.Linear" in message and "--drop leaves it out" in message
    convert(tmp_path / "in.pt", out, "--drop", "net")
    with Consolidated(out) as file:
        assert not differences([("w", file.plain("w"), w, {})])
        assert file.objects()["in.pt"]["net"]["__class__"] == "torch.nn.modules.linear.Linear"


def test_tree_that_contains_itself(tmp_path, out):
    """What can be written is: the tensors, and the tree as a pickle. `root` has no tensor but by way of the cycle."""
    state = {"t": torch.randn(3), "deep": [torch.randn(2)]}
    root = {"state": state}
    state["root"] = root
    torch.save(root, tmp_path / "in.pt")
    names = {"state.t": state["t"], "state.deep.0": state["deep"][0]}
    convert(tmp_path / "in.pt", out)
    with Consolidated(out) as file:
        assert not differences((name, file.plain(name), value, {}) for name, value in names.items())
    for number, source in enumerate((tmp_path / "in.pt", out)):
        saved = torch.load(convert(source, tmp_path / f"{number}.pt"), weights_only=False)
        assert saved["state"]["root"] is saved and torch.equal(saved["state"]["t"], state["t"])
        weights = expected_tensors(convert(source, tmp_path / f"{number}.safetensors"))
        assert torch.equal(weights["state.t"], state["t"])
        assert uckpt("sum", source).code == 0
        assert uckpt("diff", "-q", source, tmp_path / f"{number}.pt").code == 0


def test_tensors_that_come_to_one_name(tmp_path, out):
    """All but the first have a number, and the tree comes back from it."""
    values = [torch.randn(n) for n in range(1, 6)]
    tree = {"a": {"b": values[0]}, "a.b": values[1], "a.b#2": values[2], "list": [values[3]], "list.0": values[4]}
    torch.save(tree, tmp_path / "in.pt")
    result = uckpt("convert", tmp_path / "in.pt", out)
    assert result.code == 0
    assert "3 tensors come to a name that another one has, and a number is put behind it: a.b#2, …" in result.error
    names = {"a.b": 0, "a.b#2": 1, "a.b#2#2": 2, "list.0": 3, "list.0#2": 4}
    with Consolidated(out) as file:
        assert not differences((name, file.plain(name), values[i], {}) for name, i in names.items())
    for number, source in enumerate((tmp_path / "in.pt", out)):
        saved = torch.load(convert(source, tmp_path / f"{number}.pt"))
        assert saved.keys() == tree.keys() and torch.equal(saved["a"]["b"], values[0]) and torch.equal(saved["list"][0], values[3])
        assert all(torch.equal(saved[name], tree[name]) for name in ("a.b", "a.b#2", "list.0"))
        weights = expected_tensors(convert(source, tmp_path / f"{number}.safetensors"))
        assert all(torch.equal(weights[name], values[names[name]]) for name in ("a.b", "a.b#2", "a.b#2#2", "list.0#2"))
    left = torch.load(convert(tmp_path / "in.pt", tmp_path / "left.pt", "--drop", "a.b#2"))
    assert left.keys() == tree.keys() - {"a.b"} and torch.equal(left["a.b#2"], values[2])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", ["bits8", "bits16", "bits2x4"])
def test_tensor_of_a_type_that_is_not_read(dtype, legacy, tmp_path, out):
    w, odd = torch.randn(3), torch.zeros(4, dtype=torch.uint8).view(getattr(torch, dtype))
    torch.save({"w": w, "odd": odd}, tmp_path / "in.pt", _use_new_zipfile_serialization=not legacy)
    message = refused(tmp_path / "in.pt", out)
    assert f"odd: values of type torch.{dtype} cannot be converted" in message and "--drop leaves it out" in message
    convert(tmp_path / "in.pt", out, "--drop", "odd")
    with Consolidated(out) as file:
        assert not differences([("w", file.plain("w"), w, {})])


def test_type_of_a_torch_to_come(tmp_path, out):
    w, odd = torch.randn(3), torch.zeros(4, dtype=torch.uint8).view(torch.bits8)
    torch.save({"w": w, "odd": odd}, tmp_path / "in.pt", _use_new_zipfile_serialization=False)   # without a checksum
    data = (tmp_path / "in.pt").read_bytes()
    (tmp_path / "in.pt").write_bytes(data.replace(b"bits8", b"bitsX"))
    message = refused(tmp_path / "in.pt", out)
    assert "odd: values of type torch.bitsX cannot be converted" in message
    convert(tmp_path / "in.pt", out, "--drop", "odd")


def test_same_tensor_twice_is_one_dataset(tmp_path, out):
    weight = torch.randn(4, 5)
    path = str(tmp_path / "tied.pt")
    torch.save({"emb.weight": weight, "head.weight": weight, "other.weight": weight.clone()}, path)
    convert(path, out)
    with Consolidated(out) as file:
        addresses = [file.address(file.plain(name).name) for name in ("emb.weight", "head.weight", "other.weight")]
        assert addresses[0] == addresses[1] != addresses[2]


def test_every_row_of_a_large_storage(tmp_path, out):
    """Views that need more than one copy task each, transposed and strided."""
    base = torch.arange(1 << 20, dtype=torch.int32).reshape(1024, 1024)
    path = str(tmp_path / "large.pt")
    torch.save({"t": base.T, "s": base[::3, 5::7], "e": base[0].expand(64, 1024), "b": base.to(torch.bfloat16).T}, path)
    loaded = torch.load(path, weights_only=False)
    convert(path, out)
    with Consolidated(out) as file:
        assert not differences((key, file.plain(key), value, {}) for key, value in loaded.items())


def test_checkpoint_of_a_training_script(tmp_path, out):
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    path = str(tmp_path / "train.pt")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    loaded = dict(flatten(torch.load(path, weights_only=False)))
    convert(path, out)
    with Consolidated(out) as file:
        assert not differences((k, file.plain(k), v, {}) for k, v in loaded.items() if torch.is_tensor(v))


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_flipped_bit_is_found(bit, tmp_path, out):
    path = tmp_path / "in.pt"
    weight = torch.full((100,), 1.5)
    torch.save({"w": weight}, str(path))
    data = bytearray(path.read_bytes())
    at = data.index(weight.numpy().tobytes())
    data[at + 77] ^= 1 << bit
    path.write_bytes(data)
    refused(str(path), out)
    convert(str(path), out, "--no-crc")


def test_extract_is_what_numpy_reads(tmp_path):
    tensors = {"f": torch.randn(3, 4), "i": torch.arange(7), "s": torch.tensor(2.5), "e": torch.empty(0, 3),
               "h": torch.randn(5).half(), "c": torch.randn(2, dtype=torch.complex64), "b": torch.tensor([True, False]),
               "view": torch.randn(4, 6).T}
    path, npy = str(tmp_path / "in.pt"), str(tmp_path / "x.npy")
    torch.save(tensors, path)
    for name, tensor in tensors.items():
        assert uckpt("extract", path, name, "-o", npy, "-f").code == 0
        loaded = np.load(npy)
        assert loaded.dtype == tensor.numpy().dtype and loaded.shape == tuple(tensor.shape)
        assert np.array_equal(loaded, tensor.numpy())


@pytest.mark.parametrize("dtype", [torch.bool, torch.float8_e8m0fnu])
def test_negation_of_what_has_no_negatives_is_refused(dtype, tmp_path, out, monkeypatch):
    monkeypatch.setattr(torch._utils, "get_tensor_metadata", lambda tensor: {"neg": True})
    torch.save({"w": torch.ones(64, dtype=torch.uint8).view(dtype)}, tmp_path / "neg.pt")
    monkeypatch.undo()
    assert "expected values that can be negated" in refused(tmp_path / "neg.pt", out)


def test_negated_view(tmp_path, out):
    w = torch.randn(4, 5, dtype=torch.complex64).conj().imag
    assert w.is_neg()
    torch.save({"w": w}, tmp_path / "neg.pt")
    convert(tmp_path / "neg.pt", out)
    with Consolidated(out) as file:
        assert np.array_equal(file.plain("w")[()], w.resolve_neg().numpy())
