"""Compares two native DeepSpeed checkpoints of one layout: all tensors bit for bit, all objects by value.

Loads pickles with code in them: only for files that DeepSpeed or uckpt wrote here.
"""
import argparse
import enum
import os

import numpy as np
import torch

SCRIPTS = ("zero_to_fp32.py", "zero_to_torch.py")   # DeepSpeed's recovery scripts


def _files(root):
    return sorted(os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root)
                  for name in names if name not in SCRIPTS)


def _load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


def _bits(tensor):
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    flat.copy_(tensor.detach().reshape(-1))
    return flat.view(torch.uint8)


def _blank(flat, shapes, ranks, rank):
    """Stage 3: zeros what a rank's flat tensor holds behind the elements of each parameter. Its value means nothing."""
    at = 0
    for shape in shapes:
        count = torch.Size(shape).numel()
        part = -(-count // ranks)
        flat.data[at + max(0, min(part, count - rank * part)):at + part] = 0
        at += part
    assert at == flat.numel(), f"{flat.numel()} elements, but the parameters make {at}"


def _blank_filler(model, optim, rank):
    """Makes the filler of one rank's stage 3 files comparable."""
    ranks = model["dp_world_size"]
    for name, fragment in (model["frozen_param_fragments"] or {}).items():
        _blank(fragment, [model["frozen_param_shapes"][name]], ranks, rank)
    state = optim["optimizer_state_dict"]
    for i, shapes in enumerate(model["param_shapes"]):
        flat = state["fp32_flat_groups"][i]
        for tensor in (flat, *state["optimizer_state_dict"]["state"].get(i, {}).values()):
            if torch.is_tensor(tensor) and tensor.ndim and tensor.numel() == flat.numel():
                _blank(tensor, shapes.values(), ranks, rank)


def _aliases(tree):
    """Which keys name one and the same piece of memory (tied weights). Empty tensors have none."""
    found = {}

    def visit(value, path):
        if torch.is_tensor(value):
            if value.numel():
                view = (value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape), tuple(value.stride()))
                found.setdefault(view, []).append(path)
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{path}[{key!r}]")
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                visit(item, f"{path}[{i}]")
    visit(tree, "")
    return sorted(paths for paths in found.values() if len(paths) > 1)


def differences(a, b, path=""):
    """The key paths at which two loaded values differ, and how."""
    if path.endswith(("['frozen_param_shapes']", "['frozen_param_fragments']")) and not a and not b:
        return []   # stage 1 has None whether there are any or not, so an empty list becomes None on the way through it
    if type(a) is not type(b):
        return [f"{path}: {type(a).__name__}, then {type(b).__name__}"]
    if torch.is_tensor(a):
        if a.dtype != b.dtype or a.shape != b.shape:
            return [f"{path}: {a.dtype} {tuple(a.shape)}, then {b.dtype} {tuple(b.shape)}"]
        wrong = (_bits(a) != _bits(b)).sum().item()   # Python attributes (stage 3: ds_id) are no part of it
        return [f"{path}: {wrong} bytes of {a.numel() * a.element_size()} differ"] if wrong else []
    if isinstance(a, dict):
        found = [f"{path}[{key!r}]: {'gone' if key in a else 'new'}" for key in [*a, *b] if (key in a) != (key in b)]
        in_order = not all(isinstance(key, int) for key in a)   # an optimizer numbers its states as they come to be
        if not found and in_order and list(a) != list(b):
            found.append(f"{path}: in the order {list(a)}, then {list(b)}")
        return found + [line for key in a if key in b for line in differences(a[key], b[key], f"{path}[{key!r}]")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: {len(a)} items, then {len(b)}"]
        return [line for i, pair in enumerate(zip(a, b)) for line in differences(*pair, f"{path}[{i}]")]
    if isinstance(a, np.ndarray):
        equal = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return [] if equal else [f"{path}: arrays differ"]
    if isinstance(a, float):
        return [] if a == b or (a != a and b != b) else [f"{path}: {a!r}, then {b!r}"]
    if hasattr(a, "__dict__") and not isinstance(a, (enum.Enum, type)) and not callable(a):
        return differences(vars(a), vars(b), path)
    return [] if a == b else [f"{path}: {a!r}, then {b!r}"]


def compare_native(a_root, b_root):
    """The lines that say where two checkpoint roots of one layout differ; empty if nowhere."""
    a_files, b_files = _files(a_root), _files(b_root)
    found = [f"{name}: {'gone' if name in a_files else 'new'}" for name in sorted(set(a_files) ^ set(b_files))]
    for name in sorted(set(a_files) & set(b_files)):
        paths = os.path.join(a_root, name), os.path.join(b_root, name)
        if not name.endswith(".pt"):
            texts = [open(path, "rb").read() for path in paths]
            found += [] if texts[0] == texts[1] else [f"{name}: {texts[0]!r}, then {texts[1]!r}"]
            continue
        a, b = (_load(path) for path in paths)
        lines = [f"{a_} share memory, then {b_}" for a_, b_ in [(_aliases(a), _aliases(b))] if a_ != b_]
        _blank_pair(name, a_root, a, b_root, b)
        found += [f"{name}{line}" for line in differences(a, b) + lines]
    return found


def _blank_pair(name, a_root, a, b_root, b):
    base = os.path.basename(name)
    if not base.startswith(("zero_pp_rank_", "bf16_zero_pp_rank_")):
        return
    words = base.removeprefix("bf16_").split("_")
    rank, model_rank = int(words[3]), words[6]
    model_name = os.path.join(os.path.dirname(name), f"zero_pp_rank_{rank}_mp_rank_{model_rank}_model_states.pt")
    optim_names = [os.path.join(os.path.dirname(name), f"{prefix}zero_pp_rank_{rank}_mp_rank_{model_rank}_optim_states.pt")
                   for prefix in ("", "bf16_")]
    for root, tree in ((a_root, a), (b_root, b)):
        if not os.path.exists(os.path.join(root, model_name)):
            continue   # stage 1 or 2: their padding is defined
        is_model = name == model_name
        other = next((p for p in (optim_names if is_model else [model_name]) if os.path.exists(os.path.join(root, p))), None)
        if other:
            there = _load(os.path.join(root, other))
            _blank_filler(*((tree, there) if is_model else (there, tree)), rank)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    args = parser.parse_args()
    found = compare_native(args.a, args.b)
    print("\n".join(found) or "equal")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
