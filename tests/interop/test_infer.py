"""Rules for a tensor parallel checkpoint that says nothing of its fragments, drafted and corrected, against its truth."""
import argparse
import glob
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file

from common import (DATA, Consolidated, consolidated_path, convert, differences, expected_tensors, refused, tool,
                    uckpt)

TENSOR_PARALLEL = ["zero1-tp2-dp2", "bf16opt-zero1-tp2-dp2"]


def without_info(name, folder):
    shutil.copytree(os.path.join(DATA, "deepspeed", name, "ckpt"), folder)
    for path in glob.glob(os.path.join(folder, "*", "*model_states.pt")):
        os.chmod(path, 0o644)
        state = torch.load(path, weights_only=False)
        del state["universal_checkpoint_info"]
        torch.save(state, path)
    return folder


@pytest.fixture(params=TENSOR_PARALLEL)
def stripped(request, tmp_path):
    """(checkpoint, the whole tensors that it should give)."""
    folder = without_info(request.param, str(tmp_path / "ckpt"))
    return folder, expected_tensors(os.path.join(DATA, "deepspeed", request.param, "expected.safetensors"))


def infer(*args):
    result = uckpt("infer", *args)
    assert result.code == 0, result.error
    return result.text


def rule(text, name):
    """Body of the rule for a name, without its comment."""
    found = re.search(rf'^ *"{re.escape(name)}" +(.*?) *(#.*)?$', text, re.MULTILINE)
    assert found, f"no rule for {name} in\n{text}"
    return found.group(1)


def reference(tensors, path):
    save_file({key[5:]: value for key, value in tensors.items() if key.startswith("fp32/")}, path)
    return path


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_without_a_reference(stripped, out, tmp_path):
    folder, _ = stripped
    assert "nothing in it says how" in refused(folder, out)
    text = infer(folder)
    assert rule(text, "layers.{i}.input_layernorm.weight") == "replicate"
    assert rule(text, "layers.{i}.attention.dense.weight") == "?"   # no shape tells row from column
    spec = write(str(tmp_path / "rules.ucl"), text)
    checked = tool.run("check", spec)
    assert checked.code == 1 and checked.error.count("[ucl.unknown_body]") == text.count(" ? ")
    assert "how this parameter lies is not said yet" in refused(folder, out, "--spec", spec)


def test_with_a_reference(stripped, out, tmp_path):
    folder, truth = stripped
    text = infer("--like", reference(truth, str(tmp_path / "whole.safetensors")), folder)
    assert rule(text, "layers.{i}.attention.dense.weight") == "[d0, d1@tp]"
    assert rule(text, "word_embeddings.weight") == "[37 pad(40) @tp, ...]"
    assert rule(text, "position_embeddings.weight") == "replicate"
    assert rule(text, "layers.{i}.input_layernorm.bias") == "?"      # as large as the whole, but the ranks differ
    # What only a person knows: a mean, and in which order fused blocks lie.
    for name, body in {"layers.{i}.input_layernorm.bias": "partial mean over tp",
                       "layers.{i}.attention.qkv.weight": "[(q: 12@tp | k: 4@tp | v: 4@tp), ...]",
                       "layers.{i}.mlp.dense_h_to_4h.weight": "[(gate: f@tp | up: f@tp), ...]"}.items():
        assert f'"{name}"' in text
        text = re.sub(rf'("{re.escape(name)}" +)[^#\n]*', lambda m, body=body: m.group(1) + body + "  ", text)
    spec = write(str(tmp_path / "rules.ucl"), text)
    convert(folder, out, "--spec", spec)
    with Consolidated(out) as file:
        assert not differences((key, file.dataset(*consolidated_path(key)), value, {}) for key, value in truth.items())
    # The order of blocks is no matter of shapes: `check` says so.
    checked = uckpt("check", spec, folder)
    assert checked.code == 0, checked.error
    assert "taken on trust: the order (q: 12@tp | k: 4@tp | v: 4@tp)" in checked.text


def megatron_ranks(folder, fragments):
    """A Megatron checkpoint, tensor parallel: one dict of fragments a rank."""
    args = argparse.Namespace(tensor_model_parallel_size=len(fragments), pipeline_model_parallel_size=1)
    for rank, model in enumerate(fragments):
        path = os.path.join(folder, "iter_0000007", f"mp_rank_{rank:02d}")
        os.makedirs(path)
        torch.save({"args": args, "checkpoint_version": 3.0, "iteration": 7, "model": model},
                   os.path.join(path, "model_optim_rng.pt"))
    write(os.path.join(folder, "latest_checkpointed_iteration.txt"), "7")
    return folder


def test_copied_blocks_are_not_taken_for_padding(out, tmp_path):
    """k and v on every rank add up to more than the whole, as padding does; only values tell."""
    qkv, zeros = torch.randn(6, 3), torch.zeros(6, 3)          # q0 q1 q2 q3 k v
    bias = torch.cat([torch.randn(4, 1), torch.zeros(2, 1)])   # k and v have none yet
    table = torch.randn(7, 3)
    whole = {"qkv": qkv, "bias": bias, "zeros": zeros, "padded": table[:6], "rotated": table[:6]}
    padded = torch.cat([table[:6], torch.zeros(2, 3)])
    kept = torch.cat([table, table[:1]])                       # what lies behind the whole is no zero
    copied = lambda tensor, rank: torch.cat([tensor[2 * rank:2 * rank + 2], tensor[4:]])
    folder = megatron_ranks(str(tmp_path / "ckpt"), [
        {"qkv": copied(qkv, rank), "bias": copied(bias, rank), "zeros": zeros[:4] + rank,
         "padded": padded[4 * rank:4 * rank + 4].clone(), "rotated": kept[4 * rank:4 * rank + 4].clone()}
        for rank in range(2)])
    like = str(tmp_path / "whole.safetensors")
    save_file({name: tensor.contiguous().clone() for name, tensor in whole.items()}, like)
    text = infer("--like", like, folder)
    for name in ("qkv", "bias", "zeros"):
        assert rule(text, name) == "?", text
    assert "padding, `6 pad(8) @tp`, or blocks that every rank has, `(a: 4@tp | b: 2)`" in text
    for name in ("padded", "rotated"):   # the whole's own values come first
        assert rule(text, name) == "[6 pad(8) @tp, ...]", text
    # With other values in the whole, the zeros tell it; nothing does where there are none.
    save_file({name: tensor.contiguous() + 1 for name, tensor in whole.items()}, like)
    text = infer("--like", like, folder)
    assert rule(text, "padded") == "[6 pad(8) @tp, ...]" and "the rest is zeros" in text
    for name in ("qkv", "bias", "zeros", "rotated"):
        assert rule(text, name) == "?", text
    assert "how this parameter lies is not said yet" in refused(folder, out, "--spec", write(str(tmp_path / "s.ucl"), text))


def test_a_module_weight_that_differs_on_a_further_rank(out, tmp_path):
    """Its master is compared; so is the 16-bit copy that the model ran with."""
    folder = str(tmp_path / "ckpt")
    shutil.copytree(os.path.join(DATA, "deepspeed", "bf16opt-zero1-tp2-dp2", "ckpt"), folder)
    name = "position_embeddings.weight"
    paths = sorted(glob.glob(os.path.join(folder, "*", "mp_rank_*_model_states.pt")))

    def change(path):
        os.chmod(path, 0o644)
        state = torch.load(path, weights_only=False)
        state["module"][name][0, 0] += 1
        torch.save(state, path)

    change(paths[1])
    message = refused(folder, out)
    assert "module weight on rank tp 1 differs in 1 of 55 elements" in message and name in message
    # Where the first rank's differs from the master too, it is kept, and the others are compared with that.
    change(paths[0])
    plan = str(tmp_path / "plan.json")
    assert uckpt("plan", folder, out, "-o", plan).code == 0
    result = uckpt("convert", "--plan", plan)   # data decides it, which a plan does not know
    assert result.code == 1 and "the plan has no place for both" in result.error and not os.path.exists(out)
    result = uckpt("convert", folder, out)
    assert result.code == 0, result.error
    assert "both are stored" in result.error
    with Consolidated(out) as file:
        assert file.dataset("param", name) is not None
    os.remove(out)
    change(paths[1])
    message = refused(folder, out)
    assert "copies of one tensor differ: the module weight on rank tp 1" in message and f"param/{name}" in message
