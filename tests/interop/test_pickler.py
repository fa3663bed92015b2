"""What the pickler writes, read by Python and by torch: the same objects, shared in the same way."""
import argparse
import collections
import datetime
import enum
import functools
import glob
import io
import itertools
import math
import os
import pickle
import random
import subprocess
import types
import urllib.error
import zipfile
import zoneinfo

import numpy as np
import pytest
import torch

from common import DATA, tool

REPICKLE = os.path.join(os.path.dirname(tool.binary()), "repickle")
FIXTURES = sorted(path for folder in ("deepspeed", "torch")
                  for path in glob.glob(os.path.join(DATA, folder, "**", "*.pt"), recursive=True)
                  if "pt_damaged" not in path)


def repickled(pickles, folder):
    paths = [os.path.join(folder, f"{n}.pkl") for n in range(len(pickles))]
    for path, data in zip(paths, pickles):
        with open(path, "wb") as file:
            file.write(data)
    run = subprocess.run([REPICKLE], input="".join(path + "\n" for path in paths), text=True, capture_output=True,
                         timeout=600)
    assert run.returncode == 0, run.stderr[:1000]
    found = []
    for path in paths:
        with open(path + ".again", "rb") as file:
            found.append(file.read())
        os.remove(path), os.remove(path + ".again")
    return found


def is_one_of_its_kind(value):
    """Does it matter that it is this object and not an equal one?"""
    if isinstance(value, tuple):
        return len(value) > 0
    return isinstance(value, (list, dict, set, bytearray, np.ndarray, torch.Tensor, Slotted)) or hasattr(value, "__dict__")


def parts(value):
    """What lies in it, each with a name."""
    if isinstance(value, dict):
        yield from ((key, "key") for key in value)
        yield from ((item, repr(key)) for key, item in value.items())
        yield getattr(value, "default_factory", None), "factory"
    elif isinstance(value, (list, tuple)):
        yield from ((item, str(n)) for n, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from ((value.func, "func"), (value.args, "args"), (value.keywords, "keywords"))
    elif isinstance(value, Slotted):
        yield value.a, "a"
    if hasattr(value, "__dict__"):
        yield value.__dict__, "__dict__"


def difference(left, right):
    """Where two graphs of objects differ, or None: types, values, bits of numbers, and which parts are one."""
    there, back, open_ = {}, {}, [(left, right, "")]
    while open_:
        a, b, at = open_.pop()
        if type(a) is not type(b):
            return f"{at}: {type(a)} became {type(b)}"
        if isinstance(a, (type, types.FunctionType, types.BuiltinFunctionType, torch.dtype, torch.layout)):
            if a is not b:
                return f"{at}: {a!r} became {b!r}"
            continue
        if is_one_of_its_kind(a):
            if id(a) in there or id(b) in back:
                if there.get(id(a)) != id(b) or back.get(id(b)) != id(a):
                    return f"{at}: shared otherwise"
                continue
            there[id(a)], back[id(b)] = id(b), id(a)
        if isinstance(a, torch.Tensor):
            problem = tensor_difference(a, b)
            if problem:
                return f"{at}: {problem}"
        elif isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape or a.strides != b.strides or a.tobytes() != b.tobytes():
                return f"{at}: another array"
        elif not is_one_of_its_kind(a) or isinstance(a, (set, bytearray)):
            if repr(a) != repr(b):
                return f"{at}: {a!r} became {b!r}"
        of_a, of_b = list(parts(a)), list(parts(b))
        if len(of_a) != len(of_b):
            return f"{at}: {len(of_a)} parts became {len(of_b)}"
        open_ += [(x, y, f"{at}.{name}") for (x, name), (y, _) in zip(of_a, of_b)]
    return None


def tensor_difference(a, b):
    if a.layout is not torch.strided or a.is_quantized:
        return None if repr(a) == repr(b) else f"{a!r} became {b!r}"
    for what in ("dtype", "shape", "requires_grad"):
        if getattr(a, what) != getattr(b, what):
            return f"{what} {getattr(a, what)} became {getattr(b, what)}"
    if a.is_meta or b.is_meta:
        return None if a.is_meta == b.is_meta else "meta or not"
    if a.stride() != b.stride() or a.storage_offset() != b.storage_offset() or a.is_conj() != b.is_conj():
        return "another view"
    x, y = (torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()) for tensor in (a, b))
    if not torch.equal(x, y):
        return "other bytes"
    return None


def storages(tree):
    """For each tensor of a tree, in order: which of the storages met so far it lies in."""
    seen, found, visited, open_ = {}, [], set(), [tree]
    while open_:
        node = open_.pop()
        if isinstance(node, torch.Tensor) and node.layout is torch.strided and not node.is_meta:
            found.append(seen.setdefault(node.untyped_storage().data_ptr(), len(seen)))
        elif id(node) not in visited:
            visited.add(id(node))
            open_ += node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else []
    return found


class Slotted:
    __slots__ = ("a", "b")


class Named:
    def __new__(cls, x, *, y):
        self = super().__new__(cls)
        self.x, self.y = x, y
        return self

    def __getnewargs_ex__(self):
        return (self.x,), {"y": self.y}


class Items(list):
    pass


class Table(dict):
    pass


def random_tree(rng, depth, shared, protocol):
    def some():
        return random_tree(rng, depth - 1, shared, protocol)

    def key():
        return rng.choice([rng.randint(-5, 1 << 40), f"key {rng.random()}", rng.random(), (1, rng.random()),
                           bytes([rng.randint(0, 255)])])
    if shared and rng.random() < 0.2:
        return rng.choice(shared)
    if depth == 0:
        return rng.choice([None, True, 3, -1, 1 << 31, -(1 << 70), 255, 65536, 1.5, -0.0, math.inf, math.nan, "", "é\ud800",
                           b"", b"\x00\xffz", bytearray(b"ab\x80"), (), int, 2 - 1j, "x" * 300, range(3), slice(1, 2),
                           np.float32(1.5), np.arange(6, dtype=np.int16).reshape(2, 3).T, np.dtype("f8"), torch.bfloat16,
                           torch.Size([2, 3]), datetime.timedelta(3), frozenset((1, 2))])
    kind = rng.randint(0, 13)
    items = [some() for _ in range(rng.randint(0, 4))]
    pairs = [(key(), some()) for _ in range(rng.randint(0, 4))]
    if kind == 0:
        made = Slotted()
        made.a = items
    elif kind == 1 and protocol >= 4:   # before, Python calls getattr for it, which is refused
        made = Named(items, y=some())
    elif kind == 2:
        made = collections.defaultdict(rng.choice([None, list, functools.partial(dict, a=1)]), pairs)
    elif kind == 3:
        made = argparse.Namespace(**{f"a{n}": item for n, item in enumerate(items)})
    elif kind == 4:
        made = Items(items)
        made.extra = some()
    elif kind == 5:
        made = Table(pairs)
    elif kind == 6:
        made = collections.Counter(dict(pairs))
    elif kind == 7:
        made = collections.OrderedDict(pairs)
    elif kind == 8:
        made = set(key() for _ in range(3))
    elif kind < 11:
        made = dict(pairs)
    elif kind < 13:
        made = items
    else:
        made = tuple(items)
    shared.append(made)
    if isinstance(made, list) and rng.random() < 0.3:
        made.append(rng.choice(shared))   # which may be the list itself
    return made


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_reads_what_was_written(protocol, tmp_path):
    rng = random.Random(protocol)
    trees = [random_tree(rng, 4, [], protocol) for _ in range(300)]
    pickles = [pickle.dumps(tree, protocol) for tree in trees]
    for before, after in zip(pickles, repickled(pickles, tmp_path)):
        assert difference(pickle.loads(before), pickle.loads(after)) is None
        if protocol == 2:   # and it costs no more than Python's
            assert len(after) <= len(before) * 1.2 + 100


class Outer:
    class Mode(enum.Enum):
        A = 1

    class Deep:
        class In:
            def __init__(self):
                self.x = 1

            def __eq__(self, other):
                return type(other) is type(self) and other.x == self.x


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_names_that_python_spells_otherwise_before(protocol, tmp_path):
    values = [Outer.Mode.A, [Outer.Mode, Outer.Mode.A, Outer.Mode], Outer.Deep.In(), [Outer.Deep, Outer.Deep.In()],
              zoneinfo.ZoneInfo("UTC"), collections.UserDict(a=1), collections.UserList([1]), collections.UserString("x"),
              itertools.zip_longest, itertools.filterfalse, zip, KeyboardInterrupt, urllib.error.URLError("x"), chr]
    pickles = [pickle.dumps(value, protocol) for value in values]
    for value, before, after in zip(values, pickles, repickled(pickles, tmp_path)):
        found = pickle.loads(after)
        assert type(found) is type(value) and (found == value or repr(found) == repr(value))
        if protocol == 2 and b"__builtin__\ngetattr" in before:   # nested classes stand there as Python has them
            assert b"getattr" in after and len(after) <= len(before) + 20


PLAIN = [None, True, 0, 255, 256, 65535, 65536, -1, 2**31, -2**31 - 1, 2**63, -2**63 - 1, 2**3000, 1.5, math.nan, "é\ud800",
         [], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [1], [1, 2], {"a": 1}, {"a": 1, 2: [None]}, {5}, frozenset({5}),
         b"ab", [b"\xff\x00", b"more"], collections.OrderedDict(a=1, b=2), collections.Counter("aab"), bytearray(b"ab"),
         argparse.Namespace(lr=1, x=None), list(range(2500)), dict.fromkeys(range(1500)), torch.Size([2, 3]), 1 - 2j,
         np.arange(4.0), [np.float32(2)], datetime.timedelta(1), [[[], []]] * 3, torch.float16, range(1, 5, 2)]


def test_plain_things_are_written_byte_for_byte_as_python_does(tmp_path):
    pickles = [pickle.dumps(value, 2) for value in PLAIN]
    for value, before, after in zip(PLAIN, pickles, repickled(pickles, tmp_path)):
        for old, new in ((b"c__builtin__\nxrange\n", b"cbuiltins\nrange\n"), (b"c__builtin__\n", b"cbuiltins\n")):
            before = before.replace(old, new)
        assert after == before, value


def load(data, weights_only):
    """The object, or None where torch refuses it."""
    try:
        return torch.load(io.BytesIO(data), weights_only=weights_only, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, AttributeError, ModuleNotFoundError, EOFError):
        return None


def with_pickle(path, name, data):
    """The archive with another data.pkl, stored."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for member in old.namelist():
            new.writestr(member, data if member == name else old.read(member))
    return out.getvalue()


def test_torch_reads_every_fixture_written_back(tmp_path):
    import deepspeed  # noqa: F401  whose classes the pickles name
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address
    files, pickles = [], []
    for path in FIXTURES:
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
                pickles.append(archive.read(name))
                files.append((path, name))
        except zipfile.BadZipFile:   # the stream before torch 1.6
            continue
    assert len(files) > 400
    loaded = {True: 0, False: 0}
    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address, argparse.Namespace]):
        for (path, name), data in zip(files, repickled(pickles, tmp_path)):
            with open(path, "rb") as file:
                before = file.read()
            after = with_pickle(path, name, data)
            for weights_only in (True, False):
                wanted = load(before, weights_only)
                if wanted is None:
                    continue
                loaded[weights_only] += 1
                found = load(after, weights_only)
                assert found is not None, f"{path}: torch.load(weights_only={weights_only}) refuses it"
                assert difference(wanted, found) is None, path
                assert storages(wanted) == storages(found), path
                break
    assert loaded[True] > 400, loaded


@pytest.mark.parametrize("file", ["pt_dtypes", "pt_shapes", "pt_views"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_later_protocols_become_readable_as_weights(file, protocol, tmp_path):
    path = os.path.join(DATA, "torch", file, f"zip_protocol{protocol}.pt")
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        data = repickled([archive.read(name)], tmp_path)[0]
    with open(path, "rb") as whole:
        wanted = load(whole.read(), False)
    found = load(with_pickle(path, name, data), True)
    assert found is not None and difference(wanted, found) is None
