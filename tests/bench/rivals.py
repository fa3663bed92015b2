"""What uckpt is compared with: copies, the frameworks' own converters, and, run as a program, scripts as one writes them.

    rivals.py columns|rows|qkv|swiglu SOURCE OUT    merges the tensor parallel shards of large_shards.py into safetensors
    rivals.py cast SOURCE OUT                       casts a folder of safetensors to bf16
    rivals.py transpose SOURCE OUT                  writes the views of a torch.save file as safetensors
"""
import dataclasses
import glob
import os
import shlex
import shutil
import sys

MEMORY_GOAL = 10   # times ours, at least, for every converter with a goal


@dataclasses.dataclass
class Rival:
    command: object          # (source, out folder) → arguments
    goal: float | None = None   # it should take that many times as long as uckpt, at least
    slow: bool = False       # timed twice only, its memory sampled in these same runs


def copy(source, out):
    return ["cp", "-r", source, os.path.join(out, "copy")]


def copy_and_sync(source, out):
    return _shell(f"{shlex.join(copy(source, out))} && sync -f {shlex.quote(out)}")


def _shell(text):
    return ["bash", "-c", text]


def _relative_files(source):
    if os.path.isfile(source):
        return os.path.dirname(source), [os.path.basename(source)]
    return source, sorted(os.path.relpath(os.path.join(at, name), source) for at, _, names in os.walk(source) for name in names)


def two_copies(source, out):
    """Half of the bytes each, as near as whole files allow; there must be several."""
    root, files = _relative_files(source)
    halves, sizes = ([], []), [0, 0]
    for name in sorted(files, key=lambda name: -os.path.getsize(os.path.join(root, name))):
        smaller = sizes.index(min(sizes))
        halves[smaller].append(name)
        sizes[smaller] += os.path.getsize(os.path.join(root, name))
    folders = [os.path.join(out, name) for name in ("first", "second")]   # one would be made by both at once
    first, second = (shlex.join(["cp", "--parents", *half, folder]) for half, folder in zip(halves, folders))
    return _shell(f"mkdir {shlex.join(folders)} && cd {shlex.quote(root)} || exit; "
                  f"{first} & {second}; second=$?; wait $! && exit $second")


def dd(source, out):
    """File by file; blocks of a megabyte and more leave the processor's caches and take up to three times as long."""
    root, files = _relative_files(source)
    return _shell("set -e; " + "; ".join(
        shlex.join(["dd", f"if={os.path.join(root, name)}", f"of={os.path.join(out, str(i))}", "bs=128K", "status=none"])
        for i, name in enumerate(files)))


def _ds_to_universal(source, out):
    with open(os.path.join(source, "latest")) as file:
        tag = os.path.join(source, file.read().strip())
    return [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", tag, "--output_folder",
            os.path.join(out, "universal"), "--inject_missing_state", "--num_extract_workers", "2", "--num_merge_workers", "2"]


def _zero_to_fp32(source, out):
    return [sys.executable, "-m", "deepspeed.utils.zero_to_fp32", source, os.path.join(out, "fp32")]


def _dcp_to_torch_save(source, out):
    return [sys.executable, "-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch", source,
            os.path.join(out, "out.pt")]


def _consolidation(source, out):
    return [sys.executable, "-c", """
import json, os, struct, sys
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
source, out = sys.argv[1:]
with open(os.path.join(source, sorted(os.listdir(source))[0]), "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
os.makedirs(out)
consolidate_safetensors_files(source, out, {name: 1 for name in header if name != "__metadata__"}, num_threads=2)
""", source, os.path.join(out, "hf")]


def _script(verb):
    return Rival(lambda source, out: [sys.executable, __file__, verb, source, os.path.join(out, "out")], slow=True)


RIVALS = {
    "two cp": Rival(two_copies),
    "dd": Rival(dd),
    "ds_to_universal": Rival(_ds_to_universal, goal=20, slow=True),
    "zero_to_fp32": Rival(_zero_to_fp32, goal=10, slow=True),
    "dcp_to_torch_save": Rival(_dcp_to_torch_save, goal=6, slow=True),
    "torch's consolidation": Rival(_consolidation, goal=4, slow=True),
    **{f"Python, {verb}": _script(verb) for verb in ("columns", "rows", "qkv", "swiglu", "cast", "transpose")},
}


def _merged(family, name, parts):
    """(name, tensor) of what a Megatron user's script makes of one tensor's shards."""
    import torch
    from large_shards import GROUPS, HEAD, QUERIES
    if family == "qkv":
        groups = torch.cat([part.view(-1, QUERIES + 2, HEAD, part.shape[1]) for part in parts])
        layer = name.split(".")[2]
        for kind, begin, end in (("q", 0, QUERIES), ("k", QUERIES, QUERIES + 1), ("v", QUERIES + 1, QUERIES + 2)):
            cut = groups[:, begin:end].reshape(GROUPS * (end - begin) * HEAD, -1)
            yield f"model.layers.{layer}.self_attn.{kind}_proj.weight", cut
    elif family == "swiglu":
        yield name, torch.cat([half for halves in zip(*(part.chunk(2) for part in parts)) for half in halves])
    else:
        yield name, torch.cat(parts, dim=int(family == "rows"))


def _merge(family, source, out):
    import torch
    from safetensors.torch import save_file
    models = [torch.load(path, map_location="cpu", weights_only=False, mmap=True)["model"]
              for path in sorted(glob.glob(os.path.join(source, "iter_*", "mp_rank_*", "model_optim_rng.pt")))]
    save_file({key: value for name in models[0]
               for key, value in _merged(family, name, [model[name] for model in models])}, out)


def _cast(source, out):
    import torch
    from safetensors.torch import load_file, save_file
    os.makedirs(out)
    for name in os.listdir(source):
        if name.endswith(".json"):
            shutil.copy(os.path.join(source, name), out)
        else:
            tensors = load_file(os.path.join(source, name))
            save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, os.path.join(out, name))


def _transpose(source, out):
    import torch
    from safetensors.torch import save_file
    tensors = torch.load(source, map_location="cpu", mmap=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, out)


if __name__ == "__main__":
    verb, source, out = sys.argv[1:]
    {"cast": _cast, "transpose": _transpose}.get(verb, lambda *paths: _merge(verb, *paths))(source, out)
