"""The comparison code itself: it must see equality, and it must see every kind of difference."""
import h5py
import numpy as np
import pytest
import torch

from common import Consolidated, link_name, look_up, same_tensor, stored_bytes
from crc64 import crc64


def bfloat16_type():
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_precision(16)
    kind.set_ebias(127)
    return kind


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "hand.h5")
    with h5py.File(path, "w") as made:
        made["param/f"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        made["param/c"] = np.array([1 + 2j, 3 - 4j], np.complex64)
        made["param/s"] = np.float64(2.5)
        made["param/e"] = np.empty((0, 3), np.int32)
        made["param/tied"] = made["param/f"]
        bits = torch.tensor([1.5, -2.0, 3e38]).bfloat16().view(torch.uint16).numpy()
        space = h5py.h5s.create_simple((3,))
        dataset = h5py.h5d.create(made["param"].id, b"b", bfloat16_type(), space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=bfloat16_type())
        made["objects/x/json"] = '{"a": {"b.c": [1, 2]}, "n": {"__class__": "N", "state": {"lr": 0.5}}}'
    with Consolidated(path) as opened:
        yield opened


EQUAL = {"f": torch.arange(6.0).reshape(2, 3), "c": torch.tensor([1 + 2j, 3 - 4j]), "s": torch.tensor(2.5).double(),
         "e": torch.empty(0, 3, dtype=torch.int32), "b": torch.tensor([1.5, -2.0, 3e38]).bfloat16()}


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name, file):
    assert same_tensor(file.plain(name), EQUAL[name]) is None


@pytest.mark.parametrize("name,other", [
    ("f", torch.arange(6.0)), ("f", torch.arange(6.0).reshape(3, 2)), ("f", torch.arange(6).reshape(2, 3)),
    ("f", torch.arange(6.0).reshape(2, 3) + 1e-7), ("b", torch.tensor([1.5, -2.0, 3e38]).half()),
    ("s", torch.tensor(2.5)), ("s", torch.tensor(2.5).double().view(torch.int64)), ("missing", torch.zeros(1))])
def test_different(name, other, file):
    assert same_tensor(file.plain(name), other) is not None


def test_tolerance(file):
    near = torch.arange(6.0).reshape(2, 3) * (1 + 1e-6)
    assert same_tensor(file.plain("f"), near) is not None
    assert same_tensor(file.plain("f"), near, rtol=2e-6, atol=1e-7) is None


def test_addresses_bytes_and_names(file):
    assert file.address("param/f") == file.address("param/tied") != file.address("param/c")
    assert crc64(stored_bytes(file.plain("f"))) != crc64(b"") == 0
    assert link_name("a/b%c\n") == "a%2fb%25c%0a" and link_name("x.y") == "x.y"


def test_look_up(file):
    view = file.objects()["x"]
    assert look_up(view, "a.b.c.1") == (True, 2)
    assert look_up(view, "n.lr") == (True, 0.5)
    assert look_up(view, "a.x") == (False, None)
