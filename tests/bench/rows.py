"""The table: what is converted, by which command, against whom, and what is asked of it. A new row is a line here."""
import dataclasses
import os

CONTIGUOUS, SYNCED, STRIDED, CAST, TRANSPOSE = 0.70, 0.60, 0.80, 0.55, 1.0   # of `cp -r`; SYNCED of it and `sync -f`
RULES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families.ucl")


@dataclasses.dataclass
class Row:
    name: str
    about: str
    input: str           # of inputs.py
    out: str             # what the output is called
    flags: list          # of `uckpt convert`
    goal: float          # its time, of the copy's
    rivals: tuple = ()   # of rivals.py, besides the copies
    synced: bool = False   # measured to the disk, too
    copies: str = "input"   # what the copy copies: the output, where most of the input is left out; both, each for itself


def _family(name, goal, *flags):
    return Row(f"tp-{name}", f"TP 4, {name}, merged into safetensors", f"tp-{name}", "out.safetensors",
               ["--spec", RULES, "--naming", name, *flags], goal, (f"Python, {name}",))


def _of_hdf5(name, out, source, *flags, copies="input"):
    return Row(f"hdf5-{name}", f"HDF5 to {name}", source, out, ["--to", name, *flags], CONTIGUOUS, copies=copies)


_DEEPSPEED = ("ds_to_universal", "zero_to_fp32")
ROWS = {row.name: row for row in [
    *(Row(f"zero{stage}", f"ZeRO-{stage} to HDF5", f"zero{stage}", "out.h5", [], CONTIGUOUS, _DEEPSPEED, synced=True)
      for stage in (1, 2, 3)),
    Row("universal", "ZeRO-2 to a universal folder", "zero2", "out", ["--to", "deepspeed-universal"], CONTIGUOUS,
        ("ds_to_universal",), copies="both"),
    _family("columns", STRIDED),
    _family("rows", STRIDED),
    _family("qkv", STRIDED, "--as", "hf_qkv"),
    _family("swiglu", STRIDED),
    Row("dcp-hdf5", "DCP of 8 files to HDF5", "dcp", "out.h5", [], CONTIGUOUS, ("dcp_to_torch_save",), synced=True),
    Row("dcp-safetensors", "weights of a DCP to safetensors", "dcp", "out.safetensors", [], CONTIGUOUS, copies="output"),
    Row("dcp-hf", "DCP's Hugging Face shards to safetensors", "dcp-hf", "out.safetensors", [], CONTIGUOUS,
        ("torch's consolidation",)),
    Row("megatron-hdf5", "Megatron, TP 4 x PP 2, to HDF5", "megatron", "out.h5", [], STRIDED),
    Row("megatron-hf", "Megatron's masters as a Hugging Face model", "megatron", "out",
        ["--to", "safetensors", "--as", "hf"], STRIDED, copies="output"),
    Row("megatron-reshard", "Megatron, TP 4 x PP 2 to TP 2 x PP 4", "megatron", "out",
        ["--to", "megatron", "--layout", "tp=2,pp=4"], STRIDED),
    Row("core-hdf5", "Megatron-core's torch_dist to HDF5", "core", "out.h5", [], STRIDED),
    Row("hf-hdf5", "Hugging Face, fp32, to HDF5", "hf", "out.h5", [], CONTIGUOUS, synced=True),
    Row("hf-bf16", "Hugging Face, fp32 to bf16", "hf", "out", ["--to", "safetensors", "--dtype", "bf16"], CAST,
        ("Python, cast",)),
    _of_hdf5("safetensors", "out.safetensors", "hdf5-weights"),
    _of_hdf5("torch", "out.pt", "hdf5-weights"),
    _of_hdf5("dcp", "out", "hdf5", "--layout", "dp=4"),
    _of_hdf5("deepspeed", "out", "hdf5", "--layout", "dp=2,zero=2"),
    _of_hdf5("deepspeed-universal", "out", "hdf5", copies="both"),
    Row("transpose-views", "transposed views of torch.save to HDF5", "views", "out.h5", [], TRANSPOSE,
        ("Python, transpose",)),
    Row("transpose-map", "GPT-2's transposed weights under Megatron's names", "hf", "out.safetensors",
        ["--spec", "megatron/gpt2", "--naming", "hf_gpt2", "--as", "megatron_gpt2"], TRANSPOSE),
]}
