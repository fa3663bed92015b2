"""A file of weights becomes a checkpoint from which DeepSpeed goes on as it would from the same weights with a new optimizer."""
import glob
import os
import sys

import pytest
import torch
from safetensors.torch import save_file

from common import Consolidated, convert, expected_tensors, refused, tool, uckpt
from resume import Bare, Layout, Trainer

STEPS = 5
# The order in which the program registers its parameters, which no file of weights tells.
BARE = """ucl 1
layout bare over tp {
    "table.weight"  replicate
    "b.weight"      replicate
    "b.bias"        replicate
    "a.weight"      replicate
    "a.bias"        replicate
    "head.weight"   replicate
}
"""
CASES = [("bare", dict(dp=2, zero=1)), ("bare", dict(dp=3, zero=2)), ("bare", dict(dp=2, zero=3)), ("bare-bf16", dict(dp=2, zero=2)),
         ("bare-bf16", dict(dp=2, zero=3))]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    server = Trainer(str(tmp_path_factory.mktemp("trainer") / "log"))
    yield server
    server.close()


@pytest.mark.parametrize("way", ["native", "universal"])
@pytest.mark.parametrize("program, degrees", CASES, ids=str)
def test_goes_on_as_anew(program, degrees, way, trainer, tmp_path):
    torch.manual_seed(1)   # what a run that loads nothing begins with
    weights = {name: p.bfloat16() if program.endswith("bf16") else p for name, p in Bare().state_dict().items()}
    source = str(tmp_path / "weights.safetensors")
    save_file(weights, source)
    (tmp_path / "bare.ucl").write_text(BARE)
    layout = Layout(**degrees)
    flags = ["--to", "deepspeed", "--layout", layout.flag(), "--spec", str(tmp_path / "bare.ucl")]
    if way == "universal":   # names are enough
        flags = ["--to", "deepspeed-universal"]
    root = convert(source, str(tmp_path / "new"), *flags, "--missing", "zero")
    anew = trainer.run(program, layout, steps=STEPS)["losses"]
    found = trainer.run(program, layout, load=root, steps=STEPS, truth=str(tmp_path / "truth.pt"), universal=way == "universal")
    tensors, numbers = torch.load(str(tmp_path / "truth.pt"))
    for name, weight in weights.items():
        assert torch.equal(tensors[f"fp32/{name}"], weight.float()), name
        assert not tensors[f"exp_avg/{name}"].any() and not tensors[f"exp_avg_sq/{name}"].any(), name
    assert all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(found["losses"], anew, strict=True)), (found["losses"], anew)


# Tensor parallel ranks, whose fragments the checkpoint itself describes: DeepSpeed's converter joins them as it says.

def published(model, tmp_path):
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p))
    model.save_pretrained(str(tmp_path / "hf"))
    return str(tmp_path / "hf"), model.state_dict()


def gpt2(vocabulary, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel
    return published(GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=16)), tmp_path)


def gpt_neox(tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    return published(GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                                      num_attention_heads=4, max_position_embeddings=16)), tmp_path)


def to_tensor_parallel(source, out, tp, spec, theirs, ours, *flags):
    return convert(source, str(out), "--to", "deepspeed", "--layout", f"dp=2,tp={tp}", "--spec", f"megatron_deepspeed/{spec}",
                   "--naming", theirs, "--as", ours, "--missing", "zero", *flags)


def ds_to_universal(root, out):
    folder, = glob.glob(os.path.join(root, "global_step*"))
    return tool.run("-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", folder, "--output_folder", out,
                    "--num_extract_workers", 1, "--num_merge_workers", 1, program=sys.executable, timeout=200)


def model_files(root):
    return [torch.load(path, weights_only=False) for path in sorted(glob.glob(os.path.join(root, "*", "mp_rank_*")))]


GPT2_NAMES = ("gpt2", "hf_gpt2_lm", "megatron_deepspeed_gpt2")


@pytest.mark.parametrize("vocabulary, tp", [(101, 2), (256, 2), (300, 1)])
def test_padded_vocabulary(vocabulary, tp, tmp_path):
    """101 rows leave the second of two ranks with padding alone."""
    source, weights = gpt2(vocabulary, tmp_path)
    root = to_tensor_parallel(source, tmp_path / "ds", tp, *GPT2_NAMES)
    table = weights["transformer.wte.weight"]
    name = "language_model.embedding.word_embeddings.weight"
    parts = [file["module"][name] for file in model_files(root)]
    joined = torch.cat(parts)
    assert len(parts) == tp and len(joined) == -(-vocabulary // (128 * tp)) * 128 * tp
    assert torch.equal(joined[:vocabulary], table) and not joined[vocabulary:].any()
    made = ds_to_universal(root, str(tmp_path / "universal"))
    assert made.code == 0, made.error[-3000:]
    for state, expected in [("fp32", table), ("exp_avg", torch.zeros_like(table))]:
        found = torch.load(str(tmp_path / "universal" / "zero" / name / f"{state}.pt"), weights_only=False)
        assert torch.equal(found["param"], expected), state
    with Consolidated(convert(root, str(tmp_path / "all.h5"))) as file:
        assert torch.equal(torch.from_numpy(file.dataset("fp32", name)[()]), table)
    assert uckpt("verify", root).code == 0


@pytest.mark.parametrize("way", ["--spec", "no spec"])
@pytest.mark.parametrize("vocabulary", [200, 256])
def test_back_by_rules(vocabulary, way, tmp_path):
    """The rules of a spec take what the checkpoint describes itself, too."""
    source, weights = gpt2(vocabulary, tmp_path)
    root = to_tensor_parallel(source, tmp_path / "ds", 2, *GPT2_NAMES)
    flags = ["--spec", "megatron_deepspeed/gpt2", "--naming", "megatron_deepspeed_gpt2", f"--set=vocab={vocabulary}"]
    back = convert(root, str(tmp_path / "back"), "--to", "safetensors", "--as", "hf_gpt2_lm", "--set=heads=4",
                   *(flags if way == "--spec" else []))
    path, = glob.glob(os.path.join(back, "*.safetensors"))
    found = expected_tensors(path)
    expected = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    assert sorted(found) == sorted(expected)
    assert not [name for name, weight in expected.items() if not torch.equal(found[name], weight)]


def test_what_nothing_can_tell(tmp_path):
    save_file({"b": torch.ones(10), "w": torch.ones(4, 10)}, str(tmp_path / "weights.safetensors"))
    for rules, name in [('"b" [v pad(8) @tp]  "w" [...]', "b"), ('"b" [...]  "w" [h, v pad(8) @tp]', "w"),
                        ('"b" [...] + 1  "w" [...]', "b")]:
        (tmp_path / "spec.ucl").write_text(
            f'ucl 1\nwhere v = 10\nlayout l over tp {{ {rules} }}\nmap plain <-> l {{ "{{x:**}}" <-> "{{x}}" }}\n')
        error = refused(str(tmp_path / "weights.safetensors"), str(tmp_path / "out"), "--to", "deepspeed", "--layout", "tp=2",
                        "--spec", str(tmp_path / "spec.ucl"), "--naming", "plain", "--as", "l", "--missing", "zero")
        assert f"weights.safetensors::{name}: " in error and "universal_checkpoint_info cannot tell" in error and "hint: " in error


def test_biases_that_ranks_hold_in_parts(tmp_path):
    """Ranks of GPT-NeoX add up their biases, so that each holds its share. The affine map says so, and DeepSpeed's converter, which
    does not rescale the moments of such ones, refuses them: what it does with the weight is asked of its own map."""
    from deepspeed.checkpoint.affine import ParamAffineMap
    tp = 4
    source, weights = gpt_neox(tmp_path)
    root = to_tensor_parallel(source, tmp_path / "ds", tp, "gpt_neox", "hf_gpt_neox", "megatron_deepspeed_gpt_neox")
    files = model_files(root)
    for ours, theirs in [("2.attention.dense.bias", "gpt_neox.layers.0.attention.dense.bias"),
                         ("3.mlp.dense_4h_to_h.bias", "gpt_neox.layers.1.mlp.dense_4h_to_h.bias")]:
        parts = [file["module"][ours] for file in files]
        assert len(parts) == tp and all(torch.equal(part * tp, weights[theirs]) for part in parts)
        info = files[0]["universal_checkpoint_info"]
        entry, = [m for pattern, m in info["affine_map"]["params"].items() if pattern.replace("\\", "") == f"^{ours}$"]
        assert torch.equal(ParamAffineMap.from_dict(entry).rebuild(dict(enumerate(parts))), weights[theirs])
        with Consolidated(convert(root, str(tmp_path / "all.h5"), "--force")) as file:
            assert torch.equal(torch.from_numpy(file.dataset("fp32", ours)[()]), weights[theirs])
    made = ds_to_universal(root, str(tmp_path / "universal"))
    assert made.code != 0 and "optimizer state through a scaled piece" in made.error
    other = to_tensor_parallel(source, tmp_path / "other", 1, "gpt_neox", "hf_gpt_neox", "megatron_deepspeed_gpt_neox")
    assert uckpt("diff", root, other).code == 0
