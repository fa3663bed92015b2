"""What the interop tests share: running uckpt, reading its HDF5 files with h5py, comparing bit for bit."""
import json
import os
import re
import sys

import h5py
import numpy as np
import torch
from safetensors import safe_open

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import tool  # noqa: E402  the black-box runner, shared with tests/cli

DATA = tool.DATA
STATES_OF_PLAIN_FILES = ("param", "other", "buffer", "fp32")


def uckpt(*args, **options):
    """Runs uckpt; whatever the verdict, it must be well-behaved."""
    result = tool.run(*args, **options)
    problems = result.problems()
    if result.code > 0:
        problems += result.error_line_problems()
    assert not problems, f"{result.args}: {problems}\n{result.error}"
    return result


def convert(source, out, *flags):
    result = uckpt("convert", "-q", source, out, *flags)
    assert result.code == 0, result.error
    return out


def refused(source, out, *flags, code=1):
    """convert must end with `code` and leave nothing at or beside `out`. Returns its message."""
    folder = os.path.dirname(out)
    before = sorted(os.listdir(folder))
    result = uckpt("convert", "-q", source, out, *flags)
    assert result.code == code, f"exit {result.code}, expected {code}: {result.error}"
    assert sorted(os.listdir(folder)) == before, "something was left behind"
    return result.error


def link_name(name):
    """The HDF5 link for a true name: `/`, `%`, control bytes, a lone `.` and the empty name are escaped."""
    if name in ("", "."):
        return "%" if name == "" else "%2e"
    return re.sub(r"[/%\x00-\x1f\x7f]", lambda m: f"%{ord(m.group()):02x}", name)


def raw_bytes(tensor):
    """The logical row-major bytes of a torch tensor."""
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    flat.copy_(tensor.detach().reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes()


def stored_bytes(dataset):
    """The dataset's bytes straight from the file: contiguous, so one range."""
    offset, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    if size == 0:
        return b""
    assert dataset.chunks is None and offset is not None, f"{dataset.name} is not contiguous"
    with open(dataset.file.filename, "rb") as file:
        file.seek(offset)
        return file.read(size)


class Consolidated:
    """A consolidated file opened with h5py."""

    def __init__(self, path):
        self.path = path
        self.file = h5py.File(path, "r")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def dataset(self, state, name):
        group = self.file.get(state)
        return None if group is None else group.get(link_name(name))

    def plain(self, key):
        """The dataset of a plain file's key, in whatever state it was filed."""
        for state in STATES_OF_PLAIN_FILES:
            if (found := self.dataset(state, key)) is not None:
                return found
        return None

    def paths(self):
        """state/link of every tensor."""
        return {f"{state}/{link}" for state, group in self.file.items()
                if isinstance(group, h5py.Group) and state != "objects" for link in group}

    def address(self, path):
        return h5py.h5o.get_info(self.file[path].id).addr

    def objects(self):
        """origin → the JSON view of that file's non-tensor state."""
        found = {}

        def visit(name, node):
            if isinstance(node, h5py.Dataset) and name.endswith("/json"):
                found[name[:-5]] = json.loads(node.asstr()[()])
        if "objects" in self.file:
            self.file["objects"].visititems(visit)
        return found


def expected_tensors(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def same_tensor(dataset, tensor, rtol=None, atol=0.0):
    """None if equal in shape, type and bits (or within the tolerance), else what differs."""
    if dataset is None:
        return "missing"
    if tuple(dataset.shape) != tuple(tensor.shape):
        return f"shape {tuple(dataset.shape)}, expected {tuple(tensor.shape)}"
    found, expected = stored_bytes(dataset), raw_bytes(tensor)
    if found != expected:
        if len(found) != len(expected):
            return f"{len(found)} bytes, expected {len(expected)}"
        if rtol is None:
            return "bytes differ"
        ours = torch.frombuffer(bytearray(found), dtype=tensor.dtype).reshape(tensor.shape)
        if not torch.allclose(ours.double(), tensor.double(), rtol=rtol, atol=atol):
            return f"differs by {(ours.double() - tensor.double()).abs().max().item():g}"
    return same_as_h5py_reads(dataset, tensor) if rtol is None else None


# What h5py makes of a type it has no name for: float32 holding the same value.
WIDENED = {torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


def torch_to_numpy(dtype):
    return torch.empty(0, dtype=dtype).numpy().dtype


def same_as_h5py_reads(dataset, tensor):
    """None if h5py's values are the tensor's values."""
    if tensor.dtype not in WIDENED | {torch.bool} and dataset.dtype != torch_to_numpy(tensor.dtype):
        return f"type {dataset.dtype}, expected {tensor.dtype}"
    values = np.asarray(dataset[()])
    if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
        return None   # these have no infinities, which HDF5's float types cannot say: their bits were compared
    wanted = tensor.detach().resolve_conj().resolve_neg()
    wanted = (wanted.float() if tensor.dtype in WIDENED else wanted).numpy()
    if not np.array_equal(values.astype(wanted.dtype), wanted, equal_nan=wanted.dtype.kind in "fc"):
        return "h5py reads other values"
    return None


def differences(pairs):
    """Of (name, dataset, tensor, tolerances): the lines to show, empty if all is equal."""
    found = []
    for name, dataset, tensor, tolerance in pairs:
        problem = same_tensor(dataset, tensor, **tolerance)
        if problem:
            found.append(f"{name}: {problem}")
    return found


def consolidated_path(key):
    """expected.safetensors of a DeepSpeed fixture: `frozen/x` stands at `/param/x`, the rest where it says."""
    state, name = key.split("/", 1)
    return ("param" if state == "frozen" else state), name


# Where a class instance keeps its attributes in the JSON view.
_WRAPPERS = ("state", "items", "args", "value", "attributes")


def look_up(tree, dotted):
    """(found, value) of a dotted path in a JSON view; keys may themselves hold dots."""
    if dotted == "":
        return True, tree
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:n]), ".".join(parts[n:])
        children = []
        if isinstance(tree, dict):
            if key in tree:
                children.append(tree[key])
        elif isinstance(tree, list) and key.isdigit() and int(key) < len(tree):
            children.append(tree[int(key)])
        for child in children:
            found, value = look_up(child, rest)
            if found:
                return True, value
    if isinstance(tree, dict):
        for wrapper in _WRAPPERS:
            if wrapper in tree and isinstance(tree[wrapper], (dict, list)):
                found, value = look_up(tree[wrapper], dotted)
                if found:
                    return True, value
    return False, None


def same_number(ours, expected):
    if isinstance(expected, float) and isinstance(ours, (int, float)) and not isinstance(ours, bool):
        return ours == expected
    return ours == expected and type(ours) is type(expected)
