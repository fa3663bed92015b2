"""What -f replaces, and what it must not take away."""
import os
import shutil

import pytest

from common import DATA, convert, uckpt


def test_a_folder_with_more_than_the_checkpoint_is_not_replaced(tmp_path):
    source, out = os.path.join(DATA, "deepspeed", "zero2-dp3", "ckpt"), tmp_path / "run"
    flags = ["--to", "deepspeed", "--layout", "dp=2,zero=2"]
    shutil.copytree(source, out)
    convert(source, str(out), "-f", *flags)  # it holds a checkpoint and no more
    convert(source, str(out), "-f", *flags)
    step = next(name for name in os.listdir(out) if name.startswith("global_step"))
    for name in ("NOTES.md", "global_step1"):
        os.makedirs(out / name) if name == "global_step1" else (out / name).write_text("mine")
        before = sorted(os.listdir(out))
        result = uckpt("convert", "-q", source, str(out), "-f", *flags)
        assert result.code == 2 and name in result.error and "move" in result.error, result.error
        assert sorted(os.listdir(out)) == before and step in before
        os.rmdir(out / name) if name == "global_step1" else os.remove(out / name)


@pytest.mark.parametrize("to", [["--to", "dcp"], ["--to", "dcp-hf"], ["--to", "safetensors"], ["--to", "deepspeed-universal"],
                                ["--to", "deepspeed", "--layout", "dp=3,zero=3"], ["--to", "safetensors", "--shard-size", "2K"]])
def test_our_own_folders_are_replaced(to, tmp_path):
    source = os.path.join(DATA, "deepspeed", "zero2-dp3", "ckpt")
    for flags in ([], ["-f"]):
        convert(source, str(tmp_path / "out"), *to, *flags)
