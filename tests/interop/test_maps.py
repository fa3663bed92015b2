"""Maps: every shipped one there and back, bit for bit, and what Hugging Face's names then hold against numpy."""
import itertools
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from common import DATA, Consolidated, convert, refused, uckpt

HIDDEN, HEAD_DIM, FFN, VOCAB, POSITIONS, LAYERS, EXPERTS = 16, 4, 24, 128, 32, 2, 4
HEADS = HIDDEN // HEAD_DIM


def made(shapes):
    """Random float32 tensors of these shapes; one generator, so that no two are alike."""
    random = np.random.default_rng(5)
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def llama(te=False, groups=HEADS, tie=False, bias=False, norms=False):
    norm, second = ("self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight") if te else (
        "input_layernorm.weight", "pre_mlp_layernorm.weight")
    shapes = {"embedding.word_embeddings.weight": (VOCAB, HIDDEN), "decoder.final_layernorm.weight": (HIDDEN,)}
    if not tie:
        shapes["output_layer.weight"] = (VOCAB, HIDDEN)
    for i in range(LAYERS):
        layer = f"decoder.layers.{i}."
        rows = (HEADS + 2 * groups) * HEAD_DIM
        shapes |= {layer + norm: (HIDDEN,), layer + second: (HIDDEN,),
                   layer + "self_attention.linear_qkv.weight": (rows, HIDDEN),
                   layer + "self_attention.linear_proj.weight": (HIDDEN, HIDDEN),
                   layer + "mlp.linear_fc1.weight": (2 * FFN, HIDDEN), layer + "mlp.linear_fc2.weight": (HIDDEN, FFN)}
        if bias:
            shapes[layer + "self_attention.linear_qkv.bias"] = (rows,)
        if norms:
            shapes |= {layer + f"self_attention.{x}_layernorm.weight": (HEAD_DIM,) for x in "qk"}
    return shapes


def mixtral(te=False, groups=2, tie=False):
    shapes = {name: shape for name, shape in llama(groups=groups, tie=tie).items() if ".mlp." not in name}
    for i in range(LAYERS):
        layer = f"decoder.layers.{i}."
        if te:
            shapes[layer + "self_attention.linear_qkv.layer_norm_weight"] = shapes.pop(layer + "input_layernorm.weight")
        shapes[layer + "mlp.router.weight"] = (EXPERTS, HIDDEN)
        for e in range(EXPERTS):
            one, two = (f"mlp.experts.linear_fc1.weight{e}", f"mlp.experts.linear_fc2.weight{e}") if te else (
                f"mlp.experts.local_experts.{e}.linear_fc1.weight", f"mlp.experts.local_experts.{e}.linear_fc2.weight")
            shapes |= {layer + one: (2 * FFN, HIDDEN), layer + two: (HIDDEN, FFN)}
    return shapes


# Per block of GPT-2: Megatron-core's name and the shape of its weight; each has a bias too.
GPT2_BLOCK = {"input_layernorm": (HIDDEN,), "self_attention.linear_qkv": (3 * HIDDEN, HIDDEN),
              "self_attention.linear_proj": (HIDDEN, HIDDEN), "pre_mlp_layernorm": (HIDDEN,),
              "mlp.linear_fc1": (FFN, HIDDEN), "mlp.linear_fc2": (HIDDEN, FFN)}
OLD_NAMES = {"input_layernorm": "input_layernorm", "self_attention.linear_qkv": "self_attention.query_key_value",
             "self_attention.linear_proj": "self_attention.dense", "pre_mlp_layernorm": "post_attention_layernorm",
             "mlp.linear_fc1": "mlp.dense_h_to_4h", "mlp.linear_fc2": "mlp.dense_4h_to_h"}
TE_NAMES = {"input_layernorm": "self_attention.linear_qkv.layer_norm", "pre_mlp_layernorm": "mlp.linear_fc1.layer_norm"}


def gpt2(block=lambda i, name, p: f"decoder.layers.{i}.{name}.{p}", embedding="embedding.{}_embeddings.weight",
         norm="decoder.final_layernorm.{}", head=None):
    shapes = {embedding.format("word"): (VOCAB, HIDDEN), embedding.format("position"): (POSITIONS, HIDDEN)}
    shapes |= {norm.format(p): (HIDDEN,) for p in ("weight", "bias")}
    if head:
        shapes[head] = (VOCAB, HIDDEN)
    for i, (name, shape) in itertools.product(range(LAYERS), GPT2_BLOCK.items()):
        shapes |= {block(i, name, "weight"): shape, block(i, name, "bias"): shape[:1]}
    return shapes


def te_block(i, name, p):
    return f"decoder.layers.{i}.{TE_NAMES[name]}_{p}" if name in TE_NAMES else f"decoder.layers.{i}.{name}.{p}"


def gpt_neox():
    shapes = {"0.word_embeddings.weight": (VOCAB, HIDDEN), f"{LAYERS + 4}.final_linear.weight": (VOCAB, HIDDEN)}
    shapes |= {f"{LAYERS + 3}.norm.{p}": (HIDDEN,) for p in ("weight", "bias")}
    names = {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
             "attention.query_key_value": (3 * HIDDEN, HIDDEN), "attention.dense": (HIDDEN, HIDDEN),
             "mlp.dense_h_to_4h": (FFN, HIDDEN), "mlp.dense_4h_to_h": (HIDDEN, FFN)}
    for i, (name, shape) in itertools.product(range(LAYERS), names.items()):
        shapes |= {f"{i + 2}.{name}.weight": shape, f"{i + 2}.{name}.bias": shape[:1]}
    return shapes


SIZES = {"heads": HEADS, "vocab": VOCAB}
OLD = dict(block=lambda i, name, p: f"language_model.encoder.layers.{i}.{OLD_NAMES[name]}.{p}",
           embedding="language_model.embedding.{}_embeddings.weight", norm="language_model.encoder.final_layernorm.{}")
PIPE = dict(block=lambda i, name, p: f"{i + 2}.{OLD_NAMES[name]}.{p}", norm="%d.{}" % (LAYERS + 2))
CASES = {
    "llama-mha": ("megatron/llama", "megatron_llama", "hf_llama", llama(), SIZES),
    "llama-gqa": ("megatron/llama", "megatron_llama", "hf_llama", llama(groups=2), SIZES | {"groups": 2}),
    "llama-mqa-bias": ("megatron/llama", "megatron_llama", "hf_llama", llama(groups=1, bias=True), SIZES | {"groups": 1}),
    "llama-norms": ("megatron/llama", "megatron_llama", "hf_llama", llama(groups=2, norms=True), SIZES | {"groups": 2}),
    "llama-tied": ("megatron/llama", "megatron_llama", "hf_llama", llama(tie=True), SIZES | {"tie": 1}),
    "llama_te": ("megatron/llama_te", "megatron_llama_te", "hf_llama", llama(te=True, groups=2), SIZES | {"groups": 2}),
    "llama_te-tied": ("megatron/llama_te", "megatron_llama_te", "hf_llama", llama(te=True, tie=True), SIZES | {"tie": 1}),
    "llama_te-bias-norms": ("megatron/llama_te", "megatron_llama_te", "hf_llama",
                            llama(te=True, groups=2, bias=True, norms=True), SIZES | {"groups": 2}),
    "gpt_te": ("megatron/gpt_te", "megatron_gpt_te", "megatron_gpt", llama(te=True, groups=2, bias=True), SIZES | {"groups": 2}),
    "mixtral": ("megatron/mixtral", "megatron_mixtral", "hf_mixtral", mixtral(), SIZES | {"groups": 2}),
    "mixtral-tied": ("megatron/mixtral", "megatron_mixtral", "hf_mixtral", mixtral(tie=True), SIZES | {"groups": 2, "tie": 1}),
    "mixtral_te": ("megatron/mixtral_te", "megatron_mixtral_te", "hf_mixtral", mixtral(te=True), SIZES | {"groups": 2}),
    "gpt2": ("megatron/gpt2", "megatron_gpt2", "hf_gpt2", gpt2(), SIZES),
    "gpt2-untied": ("megatron/gpt2", "megatron_gpt2", "hf_gpt2", gpt2(head="output_layer.weight"), SIZES | {"tie_head": 0}),
    "gpt2-lm": ("megatron/gpt2", "megatron_gpt2", "hf_gpt2_lm", gpt2(), SIZES),
    "gpt2-lm-untied": ("megatron/gpt2", "megatron_gpt2", "hf_gpt2_lm", gpt2(head="output_layer.weight"),
                       SIZES | {"tie_head": 0}),
    "gpt2_te": ("megatron/gpt2_te", "megatron_gpt2_te", "hf_gpt2", gpt2(te_block), SIZES),
    "ds-gpt2": ("megatron_deepspeed/gpt2", "megatron_deepspeed_gpt2", "hf_gpt2", gpt2(**OLD), SIZES),
    "ds-gpt2-untied": ("megatron_deepspeed/gpt2", "megatron_deepspeed_gpt2", "hf_gpt2_lm",
                       gpt2(head="language_model.output_layer.weight", **OLD), SIZES | {"tie_head": 0}),
    "ds-gpt2_pipe": ("megatron_deepspeed/gpt2_pipe", "megatron_deepspeed_gpt2_pipe", "hf_gpt2",
                     gpt2(embedding="tied_modules.embed.{}_embeddings.weight", **PIPE), SIZES | {"layers": LAYERS}),
    "ds-gpt2_pipe-untied": ("megatron_deepspeed/gpt2_pipe", "megatron_deepspeed_gpt2_pipe", "hf_gpt2",
                            gpt2(embedding="1.{}_embeddings.weight", head=f"{LAYERS + 3}.lm_head.weight", **PIPE),
                            SIZES | {"layers": LAYERS, "tie_head": 0}),
    "ds-gpt_neox": ("megatron_deepspeed/gpt_neox", "megatron_deepspeed_gpt_neox", "hf_gpt_neox", gpt_neox(),
                    {"heads": HEADS, "layers": LAYERS}),
}


def values(path):
    with Consolidated(path) as file:
        return {name: data[()] for name, data in file.file["param"].items()}


def flags(spec, source, target, sizes):
    return ["--spec", spec, "--naming", source, "--as", target, *(f"--set={n}={v}" for n, v in sizes.items())]


def there(case, tmp_path):
    """The case's tensors, and what they are under the names of Hugging Face."""
    spec, ours, theirs, shapes, sizes = CASES[case]
    tensors = made(shapes)
    save_file(tensors, str(tmp_path / "ours.safetensors"))
    out = convert(str(tmp_path / "ours.safetensors"), str(tmp_path / "theirs.h5"), "--verify",
                  *flags(spec, ours, theirs, sizes))
    return tensors, values(out)


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    wrong = [n for n in expected if found[n].shape != expected[n].shape or found[n].tobytes() != expected[n].tobytes()]
    assert not wrong


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, tmp_path):
    spec, ours, theirs, _, sizes = CASES[case]
    tensors, _ = there(case, tmp_path)
    back = convert(str(tmp_path / "theirs.h5"), str(tmp_path / "back.h5"), "--verify", *flags(spec, theirs, ours, sizes))
    assert_same(values(back), tensors)


def hf_llama(tensors, groups, tied, biased):
    """By hand, as Megatron's converters do it: per group its heads' queries, then its key, then its value."""
    out = {"model.embed_tokens.weight": tensors["embedding.word_embeddings.weight"],
           "model.norm.weight": tensors["decoder.final_layernorm.weight"]}
    if not tied:
        out["lm_head.weight"] = tensors["output_layer.weight"]
    per_group = HEADS // groups
    for i in range(LAYERS):
        old, new = f"decoder.layers.{i}.", f"model.layers.{i}."
        for p in ("weight", "bias") if biased else ("weight",):
            qkv = tensors[f"{old}self_attention.linear_qkv.{p}"]
            by_group = qkv.reshape(groups, per_group + 2, HEAD_DIM, *qkv.shape[1:])
            for name, rows in (("q", by_group[:, :per_group]), ("k", by_group[:, per_group]), ("v", by_group[:, -1])):
                out[f"{new}self_attn.{name}_proj.{p}"] = rows.reshape(-1, *qkv.shape[1:])
        fc1 = tensors[old + "mlp.linear_fc1.weight"]
        out |= {new + "self_attn.o_proj.weight": tensors[old + "self_attention.linear_proj.weight"],
                new + "mlp.gate_proj.weight": fc1[:FFN], new + "mlp.up_proj.weight": fc1[FFN:],
                new + "mlp.down_proj.weight": tensors[old + "mlp.linear_fc2.weight"],
                new + "input_layernorm.weight": tensors[old + "input_layernorm.weight"],
                new + "post_attention_layernorm.weight": tensors[old + "pre_mlp_layernorm.weight"]}
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


@pytest.mark.parametrize("case", ["llama-mha", "llama-gqa", "llama-mqa-bias", "llama-tied"])
def test_llama_against_numpy(case, tmp_path):
    sizes = CASES[case][4]
    tensors, found = there(case, tmp_path)
    assert_same(found, hf_llama(tensors, sizes.get("groups", HEADS), "tie" in sizes, "bias" in case))


def hf_gpt2(tensors, head):
    out = {"wte.weight": tensors["embedding.word_embeddings.weight"],
           "wpe.weight": tensors["embedding.position_embeddings.weight"]}
    if head:
        out["lm_head.weight"] = tensors["output_layer.weight"]
    for p in ("weight", "bias"):
        out[f"ln_f.{p}"] = tensors[f"decoder.final_layernorm.{p}"]
        for i in range(LAYERS):
            old, new = f"decoder.layers.{i}.", f"h.{i}."
            qkv = tensors[f"{old}self_attention.linear_qkv.{p}"]
            # heads, (q, k, v), head_dim → (q, k, v), heads, head_dim
            fused = qkv.reshape(HEADS, 3, HEAD_DIM, *qkv.shape[1:]).swapaxes(0, 1).reshape(qkv.shape)
            out |= {f"{new}ln_1.{p}": tensors[f"{old}input_layernorm.{p}"],
                    f"{new}ln_2.{p}": tensors[f"{old}pre_mlp_layernorm.{p}"],
                    f"{new}attn.c_attn.{p}": fused.T,
                    f"{new}attn.c_proj.{p}": tensors[f"{old}self_attention.linear_proj.{p}"].T,
                    f"{new}mlp.c_fc.{p}": tensors[f"{old}mlp.linear_fc1.{p}"].T,
                    f"{new}mlp.c_proj.{p}": tensors[f"{old}mlp.linear_fc2.{p}"].T}
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


@pytest.mark.parametrize("case", ["gpt2", "gpt2-untied"])
def test_gpt2_against_numpy(case, tmp_path):
    tensors, found = there(case, tmp_path)
    assert_same(found, hf_gpt2(tensors, "untied" in case))


def test_extract_and_ls_speak_the_new_names(tmp_path):
    spec, ours, theirs, shapes, sizes = CASES["llama-gqa"]
    tensors = made(shapes)
    path = str(tmp_path / "ours.safetensors")
    save_file(tensors, path)
    npy = str(tmp_path / "q.npy")
    name = "model.layers.1.self_attn.q_proj.weight"
    assert uckpt("extract", path, name, "-o", npy, *flags(spec, ours, theirs, sizes)).code == 0
    expected = hf_llama(tensors, 2, False, False)
    assert np.array_equal(np.load(npy), expected[name])
    listed = uckpt("ls", "-a", path, *flags(spec, ours, theirs, sizes))
    assert all(name in listed.text for name in expected)
    assert uckpt("check", spec, path, *flags(spec, ours, theirs, sizes)[2:]).code == 0


def test_tied_names_of_a_torch_file(tmp_path):
    """Both names of the shared table are in the file, as one storage; untied, they stay two names of one dataset."""
    tensors = hf_llama(made(llama(tie=True)), HEADS, True, False)
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    source = str(tmp_path / "pytorch_model.bin")
    for tie, names in ((1, set()), (0, {"output_layer.weight"})):
        out = convert(source, str(tmp_path / f"tie{tie}.h5"),
                      *flags("megatron/llama", "hf_llama", "megatron_llama", SIZES | {"tie": tie}))
        assert set(values(out)) == set(llama(tie=True)) | names
        with Consolidated(out) as file:
            for name in names:
                assert file.address(f"param/{name}") == file.address("param/embedding.word_embeddings.weight")


def test_the_only_other_naming_is_the_inputs(tmp_path):
    tensors = hf_llama(made(llama()), HEADS, False, False)
    save_file(tensors, str(tmp_path / "hf.safetensors"))
    out = convert(str(tmp_path / "hf.safetensors"), str(tmp_path / "out.h5"), "--spec", "megatron/llama",
                  "--as", "megatron_llama", "--set", f"heads={HEADS}")
    assert_same(values(out), made(llama()))


def test_a_missing_tensor_is_found_before_anything_is_written(tmp_path, out):
    tensors = hf_llama(made(llama()), HEADS, False, False)
    del tensors["model.layers.1.self_attn.v_proj.weight"]
    save_file(tensors, str(tmp_path / "hf.safetensors"))
    message = refused(str(tmp_path / "hf.safetensors"), out, *flags("megatron/llama", "hf_llama", "megatron_llama", SIZES))
    assert "`model.layers.1.self_attn.v_proj.weight` is missing" in message


# How the fixture's own names and shapes would be in a family that keeps everything apart, some of it transposed.
FIXTURE_MAP = """
map deepspeed <-> apart {
    where n = 3, m = 1
    "layers.{i}.attention.qkv.weight" [(q: n d | k: m d | v: m d), h]
        <-> q: "block.{i}.q" [n d, h], k: "block.{i}.k" [m d, h], v: "block.{i}.v" [h, m d]
    "layers.{i}.mlp.dense_h_to_4h.weight" [(gate: f | up: f), h] <-> gate: "block.{i}.gate" [f, h], up: "block.{i}.up" [h, f]
    "layers.{i}.attention.dense.weight" [o, u] <-> "block.{i}.o" [u, o]
    "layers.{i}.mlp.dense_4h_to_h.weight" [h, f] <-> "block.{i}.down" [f, h]
    "{x:**}" <-> "other.{x}"
}
"""


def all_values(path):
    with Consolidated(path) as file:
        return {name: file.file[name][()] for name in sorted(file.paths())}


@pytest.mark.parametrize("fixture", ["zero1-tp2-dp2", "zero2-tp2-dp1-ucp04", "bf16opt-zero1-tp2-dp2"])
def test_ranks_of_deepspeed_with_all_states(fixture, tmp_path):
    source = os.path.join(DATA, "deepspeed", fixture, "ckpt")
    plain = all_values(convert(source, str(tmp_path / "plain.h5")))
    spec = str(tmp_path / "spec.ucl")
    with open(spec, "w", encoding="utf-8") as file:
        file.write(uckpt("infer", source).text + FIXTURE_MAP)
    args = ["--spec", spec, "--naming"]
    apart = convert(source, str(tmp_path / "apart.h5"), "--verify", *args, "deepspeed", "--as", "apart")
    found = all_values(apart)
    checked = 0
    for name, whole in plain.items():
        state, rest = name.split("/", 1)
        layer = rest.split(".")[1]
        if whole.ndim != 2:
            continue
        block = f"{state}/block.{layer}."
        if rest.endswith("qkv.weight"):
            assert np.array_equal(found[block + "q"], whole[:12])
            assert np.array_equal(found[block + "k"], whole[12:16])
            assert np.array_equal(found[block + "v"], whole[16:].T)
            checked += 1
        if rest.endswith("dense_h_to_4h.weight"):
            assert np.array_equal(found[block + "gate"], whole[:14])
            assert np.array_equal(found[block + "up"], whole[14:].T)
            checked += 1
        if rest.endswith("attention.dense.weight"):
            assert np.array_equal(found[block + "o"], whole.T)
            checked += 1
    assert checked >= 12
    back = convert(apart, str(tmp_path / "back.h5"), "--verify", *args, "apart", "--as", "deepspeed")
    assert_same(all_values(back), plain)
