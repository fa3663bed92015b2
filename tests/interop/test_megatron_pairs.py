"""Megatron's checkpoints by way of other formats and back: nothing of the model and its optimizer is lost."""
import os

import pytest

from common import convert
from test_megatron_legacy import check, folder

SIZES = [flag for size in ("heads=4", "groups=2", "head_dim=4", "hidden=16", "vocab=128", "divisor=16") for flag in ("--set", size)]


def source(fixture, kind):
    """The folder of a fixture in one of Megatron's two formats."""
    names = sorted(os.listdir(folder(fixture)))
    return os.path.join(folder(fixture), next(n for n in names if n.startswith(kind)))


def follow(tmp_path, start, *steps):
    """Converts from step to step; each is a list of flags. The last output's path."""
    for number, flags in enumerate(steps):
        target = str(tmp_path / f"step{number}")
        if flags[:2] == ["--to", "hdf5"]:
            target += ".h5"
        convert(start, target, *flags)
        start = target
    return start


@pytest.mark.parametrize("fixture", ["megatron_llama_tp_pp", "megatron_gpt2_tied", "megatron_moe_ep"])
@pytest.mark.parametrize("kind,other", [("legacy", "megatron-core"), ("torch_dist_fully", "megatron")])
def test_through_hdf5_to_the_other_format(tmp_path, fixture, kind, other):
    end = follow(tmp_path, source(fixture, kind), ["--to", "hdf5"], ["--to", other, "--layout", "tp=1,pp=1"],
                 ["--to", "hdf5"])
    check(end, fixture)


@pytest.mark.parametrize("kind", ["legacy", "torch_dist_dp"])
@pytest.mark.parametrize("back", ["megatron", "megatron-core"])
def test_through_deepspeed(tmp_path, kind, back):
    """DeepSpeed's files keep no arguments of Megatron's: the sizes are said anew."""
    end = follow(tmp_path, source("megatron_llama_tp_pp", kind),
                 ["--to", "deepspeed", "--layout", "tp=2,dp=2,zero=1", "--missing", "zero"],
                 ["--to", back, "--layout", "tp=4,pp=2", *SIZES], ["--to", "hdf5"])
    check(end, "megatron_llama_tp_pp")
