"""Models by transformers as Megatron's names and files, and back: the same bits, and a model that loads and computes the same."""
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import megatron_run
from common import DATA, Consolidated, convert, expected_tensors, refused, uckpt

HIDDEN, HEADS, GROUPS, HEAD, FFN, LAYERS, VOCAB, POSITIONS, EXPERTS, DIVISOR = 32, 4, 2, 8, 48, 4, 101, 64, 4, 16
# The fixtures lie outside of the repository where they are too large for it.
FIXTURES = os.path.join(DATA, "torch")


def llama(tie, groups=GROUPS, kind="Llama", head=HEAD):
    import transformers
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=groups, head_dim=head, max_position_embeddings=POSITIONS, tie_word_embeddings=tie,
        rms_norm_eps=2e-6, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def llama3():
    from transformers import LlamaConfig, LlamaForCausalLM
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, max_position_embeddings=POSITIONS,
        rope_parameters={"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}))


def gpt2(tie):
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=POSITIONS, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS,
                                      tie_word_embeddings=tie, layer_norm_epsilon=2e-5))


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM
    return MixtralForCausalLM(MixtralConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, max_position_embeddings=POSITIONS, num_local_experts=EXPERTS, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}))


# name → (model, spec, its layout, the naming of the published files)
MODELS = {
    "llama": (lambda: llama(False), "megatron/llama", "megatron_llama", "hf_llama"),
    "llama-tied": (lambda: llama(True), "megatron/llama", "megatron_llama", "hf_llama"),
    "llama-mha-wide-heads": (lambda: llama(False, HEADS, head=16), "megatron/llama", "megatron_llama", "hf_llama"),
    "llama3": (llama3, "megatron/llama", "megatron_llama", "hf_llama"),
    "qwen2": (lambda: llama(False, kind="Qwen2"), "megatron/llama", "megatron_llama", "hf_llama"),
    "qwen3": (lambda: llama(True, kind="Qwen3"), "megatron/llama", "megatron_llama", "hf_llama"),
    "gpt2": (lambda: gpt2(True), "megatron/gpt2", "megatron_gpt2", "hf_gpt2_lm"),
    "gpt2-untied": (lambda: gpt2(False), "megatron/gpt2", "megatron_gpt2", "hf_gpt2_lm"),
    "mixtral": (mixtral, "megatron/mixtral", "megatron_mixtral", "hf_mixtral"),
}


def seeded(name):
    torch.manual_seed(11)
    model = MODELS[name][0]().eval()
    with torch.no_grad():  # what is 0 or 1 everywhere shows no mistake
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)
    return model


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name → (the folder that transformers wrote, the model); each made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("published") / name
            model = seeded(name)
            model.save_pretrained(str(folder))
            made[name] = str(folder), model
        return made[name]
    return get


def tensors_in(folder):
    found = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            found |= expected_tensors(os.path.join(folder, file))
    return found


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    wrong = [n for n in expected if found[n].dtype != expected[n].dtype or not torch.equal(found[n], expected[n])]
    assert not wrong


def assert_loads_and_computes(folder, model):
    """From the folder alone: every weight is found, and logits are the same to the last bit."""
    from transformers import AutoConfig, AutoModelForCausalLM
    assert AutoConfig.from_pretrained(folder).model_type == model.config.model_type
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = torch.arange(24).reshape(2, 12) * 7 % VOCAB
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)


def to_megatron(name, folder, out):
    _, spec, ours, theirs = MODELS[name]
    return convert(folder, out, "--verify", "--spec", spec, "--naming", theirs, "--as", ours)


def from_megatron(name, source, out, *flags):
    _, spec, ours, theirs = MODELS[name]
    return convert(source, out, "--verify", "--to", "safetensors", "--spec", spec, "--naming", ours, "--as", theirs, *flags)


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, published, tmp_path):
    folder, model = published(name)
    middle = to_megatron(name, folder, str(tmp_path / "megatron.h5"))
    back = from_megatron(name, middle, str(tmp_path / "back"))
    assert_same(tensors_in(back), tensors_in(folder))
    assert_loads_and_computes(back, model)


def ours_in(path):
    with Consolidated(path) as file:
        return {name: data[()] for name, data in file.file["param"].items()}


def qkv_by_group(q, k, v, groups, head):
    """Per group its heads' queries, then its key, then its value."""
    rest = q.shape[1:]
    parts = [part.reshape(groups, -1, head, *rest) for part in (q, k, v)]
    return np.concatenate(parts, 1).reshape(-1, *rest)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-mha-wide-heads", "qwen2", "mixtral"])
def test_fused_tensors_against_numpy(name, published, tmp_path):
    folder, model = published(name)
    found = ours_in(to_megatron(name, folder, str(tmp_path / "megatron.h5")))
    theirs = {n: t.numpy() for n, t in tensors_in(folder).items()}
    config = model.config
    for i in range(LAYERS):
        hf, ours = f"model.layers.{i}.", f"decoder.layers.{i}."
        for p in ("weight", "bias") if name == "qwen2" else ("weight",):
            qkv = qkv_by_group(*(theirs[f"{hf}self_attn.{x}_proj.{p}"] for x in "qkv"), config.num_key_value_heads, config.head_dim or HEAD)
            assert np.array_equal(found[f"{ours}self_attention.linear_qkv.{p}"], qkv)
        if name == "mixtral":
            for e in range(EXPERTS):
                expert = f"{hf}block_sparse_moe.experts.{e}."
                fc1 = np.concatenate([theirs[expert + "w1.weight"], theirs[expert + "w3.weight"]])
                assert np.array_equal(found[f"{ours}mlp.experts.local_experts.{e}.linear_fc1.weight"], fc1)
        else:
            fc1 = np.concatenate([theirs[hf + "mlp.gate_proj.weight"], theirs[hf + "mlp.up_proj.weight"]])
            assert np.array_equal(found[ours + "mlp.linear_fc1.weight"], fc1)
    assert ("output_layer.weight" in found) == (name != "llama-tied")


def test_gpt2_fused_against_numpy(published, tmp_path):
    folder, _ = published("gpt2")
    found = ours_in(to_megatron("gpt2", folder, str(tmp_path / "megatron.h5")))
    theirs = {n: t.numpy() for n, t in tensors_in(folder).items()}
    for i in range(LAYERS):
        for p in ("weight", "bias"):
            c_attn = theirs[f"transformer.h.{i}.attn.c_attn.{p}"].T
            fused = c_attn.reshape(3, HEADS, HEAD, *c_attn.shape[1:]).swapaxes(0, 1).reshape(c_attn.shape)
            assert np.array_equal(found[f"decoder.layers.{i}.self_attention.linear_qkv.{p}"], fused)


def kept_settings(path):
    with Consolidated(path) as file:
        return json.loads(file.file["settings"].asstr()[()])["settings"]


def test_settings_that_megatron_gets(published, tmp_path):
    """Read off the names of Megatron-LM's arguments."""
    folder, _ = published("llama")
    kept = kept_settings(to_megatron("llama", folder, str(tmp_path / "llama.h5")))
    expected = {"num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS,
                "num_query_groups": GROUPS, "group_query_attention": True, "kv_channels": HEAD, "vocab_size": VOCAB,
                "max_position_embeddings": POSITIONS, "norm_epsilon": 2e-6, "rotary_base": 5000.0, "swiglu": True,
                "normalization": "RMSNorm", "position_embedding_type": "rope", "add_bias_linear": False,
                "add_qkv_bias": False, "qk_layernorm": False, "untie_embeddings_and_output_weights": True}
    assert {k: kept.get(k) for k in expected} == expected
    kept = kept_settings(to_megatron("qwen2", published("qwen2")[0], str(tmp_path / "qwen2.h5")))
    assert kept["add_qkv_bias"] is True
    kept = kept_settings(to_megatron("qwen3", published("qwen3")[0], str(tmp_path / "qwen3.h5")))
    assert kept["qk_layernorm"] is True and kept["untie_embeddings_and_output_weights"] is False
    kept = kept_settings(to_megatron("llama3", published("llama3")[0], str(tmp_path / "llama3.h5")))
    assert kept["use_rope_scaling"] is True and kept["rope_scaling_factor"] == 4.0
    kept = kept_settings(to_megatron("gpt2", published("gpt2")[0], str(tmp_path / "gpt2.h5")))
    expected = {"num_layers": LAYERS, "ffn_hidden_size": 4 * HIDDEN, "normalization": "LayerNorm", "swiglu": False,
                "position_embedding_type": "learned_absolute", "add_bias_linear": True, "norm_epsilon": 2e-5,
                "untie_embeddings_and_output_weights": False}
    assert {k: kept.get(k) for k in expected} == expected
    kept = kept_settings(to_megatron("mixtral", published("mixtral")[0], str(tmp_path / "mixtral.h5")))
    assert kept["num_experts"] == EXPERTS and kept["moe_router_topk"] == 2 and kept["moe_ffn_hidden_size"] == FFN


def test_another_type_is_named_in_the_config(published, tmp_path):
    folder, _ = published("llama")
    middle = to_megatron("llama", folder, str(tmp_path / "megatron.h5"))
    renamed = from_megatron("llama", middle, str(tmp_path / "renamed"), "--dtype", "bf16")
    same_names = convert(folder, str(tmp_path / "same"), "--to", "safetensors", "--dtype", "bf16")
    from transformers import AutoModelForCausalLM
    for out in (renamed, same_names):
        assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16


def test_own_config_is_kept(published, tmp_path):
    folder, model = published("gpt2")
    out = convert(folder, str(tmp_path / "out"), "--to", "safetensors")
    for file in ("config.json", "generation_config.json"):
        with open(os.path.join(folder, file), "rb") as a, open(os.path.join(out, file), "rb") as b:
            assert a.read() == b.read()
    assert_loads_and_computes(out, model)
    single = convert(folder, str(tmp_path / "one.safetensors"))
    assert os.path.isfile(single)


def test_a_model_of_another_kind_is_refused_by_name(published, tmp_path, out):
    folder, _ = published("llama")
    copy = tmp_path / "other"
    os.mkdir(copy)
    for file in os.listdir(folder):
        with open(os.path.join(folder, file), "rb") as a, open(copy / file, "wb") as b:
            b.write(a.read())
    with open(copy / "config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["hidden_act"] = "relu"
    with open(copy / "config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    message = refused(str(copy), out, "--spec", "megatron/llama", "--as", "megatron_llama")
    assert 'the input\'s setting `hidden_act` is "relu": expected "silu"' in message


@pytest.mark.parametrize("kind", ["megatron", "megatron-core"])
@pytest.mark.parametrize("name,lost,said", [
    ("llama", "layers.1.", "has i = 1"), ("llama", "layers.3.", "expected layers = 4 numbers of `i`, found 3"),
    ("mixtral", "experts.1.", "has e = 1"), ("mixtral", "experts.3.", "expected experts = 4 numbers of `e`, found 3"),
    ("mixtral", "layers.1.block_sparse_moe.experts.2.", "at i = 1, e = 2")])
def test_layers_and_experts_that_are_lost(name, lost, said, kind, published, tmp_path, out):
    folder, _ = published(name)
    copy = str(tmp_path / "copy")
    shutil.copytree(folder, copy)
    tensors = {k: v for k, v in tensors_in(folder).items() if lost not in k}
    assert len(tensors) < len(tensors_in(folder))
    save_file(tensors, os.path.join(copy, "model.safetensors"), {"format": "pt"})
    assert said in refused(copy, out, "--to", kind, "--layout", "pp=2")
    assert not os.path.exists(out)


@pytest.mark.parametrize("name", ["llama-tied", "mixtral"])
def test_torch_dcp_of_megatron(name, published, tmp_path):
    """Megatron's `--ckpt-format torch_dcp`: torch itself saves the state dict, and `args` is one object of it."""
    import torch.distributed.checkpoint as dcp
    folder, model = published(name)
    middle = convert(folder, str(tmp_path / "megatron"), "--to", "megatron", "--layout", "tp=1")
    [file] = [os.path.join(root, "model_optim_rng.pt") for root, _, files in os.walk(middle) if "model_optim_rng.pt" in files]
    saved = torch.load(file, weights_only=False)
    run = tmp_path / "run"
    dcp.save({**{k: saved[k] for k in ("args", "checkpoint_version", "model")}, "iteration": 7},
             checkpoint_id=str(run / "iter_0000007"), no_dist=True)
    (run / "latest_checkpointed_iteration.txt").write_text("7")
    back = convert(str(run), str(tmp_path / "back"), "--to", "safetensors", "--as", "hf")
    assert_same(tensors_in(back), tensors_in(folder))
    assert_loads_and_computes(back, model)
    assert json.loads(uckpt("inspect", "--json", str(run)).out)["iteration"] == 7


def test_an_expert_that_megatron_lost(published, tmp_path, out):
    """A rank's experts count from 0: without its last one it looks whole, but for the number that the args say."""
    folder, _ = published("mixtral")
    middle = convert(folder, str(tmp_path / "megatron"), "--to", "megatron", "--layout", "ep=2")
    [file] = [os.path.join(root, "model_optim_rng.pt") for root, _, _ in os.walk(middle) if root.endswith("_001")]
    saved = torch.load(file, weights_only=False)
    assert saved["args"].num_experts == 4
    saved["model"] = {k: v for k, v in saved["model"].items() if "local_experts.1." not in k}
    torch.save(saved, file)
    assert "expected experts = 4 numbers of `e`, found 3" in refused(middle, out, "--to", "safetensors", "--as", "hf")


@pytest.mark.parametrize("tp", [3, 8])
def test_heads_are_not_torn(tp, tmp_path, out):
    """Of 4 heads of 6 elements, whose rows would divide by 3 and by 8: Megatron wants whole heads on each rank."""
    from transformers import LlamaConfig, LlamaForCausalLM
    folder = str(tmp_path / "hf")
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=24, intermediate_size=48, num_hidden_layers=2,
                                 num_attention_heads=4, num_key_value_heads=4)).save_pretrained(folder)
    assert "cannot be cut evenly" in refused(folder, out, "--to", "megatron", "--layout", f"tp={tp}")


def test_a_second_head_is_not_dropped_without_a_word(published, tmp_path):
    """transformers ties no two tables that a file has with different values: it may be another one."""
    folder = changed(published("llama")[0], tmp_path / "hf", tie_word_embeddings=True)
    result = uckpt("convert", folder, str(tmp_path / "megatron"), "--to", "megatron", "--layout", "tp=1")
    assert result.code == 0 and "`lm_head.weight` is left out: the map drops it" in result.error, result.error
    result = uckpt("convert", published("llama-tied")[0], str(tmp_path / "other"), "--to", "megatron", "--layout", "tp=1")
    assert result.code == 0 and "left out" not in result.error, result.error


def test_no_config_where_too_little_is_known(published, tmp_path):
    folder, _ = published("llama")
    weights = os.path.join(folder, "model.safetensors")
    sizes = [f"--set={k}={v}" for k, v in {"heads": HEADS, "groups": GROUPS, "vocab": VOCAB}.items()]
    middle = convert(weights, str(tmp_path / "m.h5"), "--spec", "megatron/llama", "--as", "megatron_llama", *sizes)
    result = uckpt("convert", middle, str(tmp_path / "out"), "--to", "safetensors", "--spec", "megatron/llama", "--as", "hf_llama")
    assert result.code == 0
    assert "config.json is written, since nothing tells" in result.error and "`num_hidden_layers`" in result.error
    assert not os.path.exists(tmp_path / "out" / "config.json")
    assert_same(tensors_in(str(tmp_path / "out")), tensors_in(folder))


# ---- through Megatron's own files

MESHES = {"llama": "tp=2,pp=2", "llama-tied": "tp=2,pp=2", "qwen3": "tp=2,pp=4", "gpt2": "tp=2,pp=2", "mixtral": "tp=2,pp=2,ep=2"}


def padded(vocab, tp, divisor=128):
    return -(-vocab // (divisor * tp)) * divisor * tp


@pytest.mark.parametrize("kind", ["megatron", "megatron-core"])
@pytest.mark.parametrize("name", MESHES)
def test_over_files_of_megatron(kind, name, published, tmp_path):
    folder, model = published(name)
    _, spec, ours, theirs = MODELS[name]
    middle = convert(folder, str(tmp_path / "megatron"), "--to", kind, "--layout", MESHES[name], "--spec", spec,
                     "--naming", theirs, "--as", ours)
    back = convert(middle, str(tmp_path / "back"), "--to", "safetensors", "--as", theirs)
    assert_same(tensors_in(back), tensors_in(folder))
    assert_loads_and_computes(back, model)


@pytest.mark.parametrize("tp", [4, 3])
@pytest.mark.parametrize("tie", [False, True])
def test_vocabulary_is_padded(tp, tie, tmp_path):
    """For tp 3 all that is cut must divide by 3."""
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(12)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=24, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=12, num_key_value_heads=12, tie_word_embeddings=tie)).eval()
    folder = str(tmp_path / "hf")
    model.save_pretrained(folder)
    middle = convert(folder, str(tmp_path / "megatron"), "--to", "megatron", "--layout", f"tp={tp}",
                     "--spec", "megatron/llama", "--naming", "hf_llama", "--as", "megatron_llama")
    whole = model.get_input_embeddings().weight.detach()
    rows = padded(VOCAB, tp) // tp
    parts = []
    for rank in range(tp):
        [file] = [os.path.join(root, f) for root, _, files in os.walk(middle) for f in files
                  if f == "model_optim_rng.pt" and f"mp_rank_{rank:02d}" in root]
        saved = torch.load(file, weights_only=False)
        parts.append(saved["model"]["embedding.word_embeddings.weight"])
        assert parts[-1].shape == (rows, 24)
        assert saved["args"].padded_vocab_size == padded(VOCAB, tp)
        assert saved["args"].untie_embeddings_and_output_weights is not tie
    joined = torch.cat(parts)
    assert torch.equal(joined[:VOCAB], whole) and not joined[VOCAB:].any()
    back = convert(middle, str(tmp_path / "back"), "--to", "safetensors", "--as", "hf_llama")
    assert_same(tensors_in(back), tensors_in(folder))
    assert_loads_and_computes(back, model)


def rewritten(middle, out, change, **settings):
    """A copy of Megatron's files of one rank, with other tensors and args."""
    shutil.copytree(middle, out)
    file, saved = args_in(out)
    change(saved["model"])
    vars(saved["args"]).update(settings)
    torch.save(saved, file)
    return str(out)


def test_what_no_family_has_gets_no_config_of_another(ours, tmp_path, out):
    """Biases in QKV make a Qwen2, norms of queries and keys a Qwen3: transformers would drop what its model lacks."""
    def with_biases(model):
        for name in [n for n in model if n.endswith("linear_qkv.weight")]:
            model[name.replace("weight", "bias")] = torch.ones(model[name].shape[0])

    both = rewritten(ours("qwen3"), tmp_path / "both", with_biases, add_qkv_bias=True)
    assert "`qk_layernorm` is true: expected false" in refused(both, out, "--to", "safetensors", "--as", "hf")


@pytest.mark.parametrize("name,setting,tensor", [("qwen2", "add_qkv_bias", "linear_qkv.bias"), ("qwen3", "qk_layernorm", "q_layernorm.weight")])
def test_args_without_the_family(name, setting, tensor, ours, tmp_path, out):
    """The config.json would be Llama's, and its model would leave them out."""
    middle = rewritten(ours(name), tmp_path / "m", lambda model: None, **{setting: False})
    message = refused(middle, out, "--to", "safetensors", "--as", "hf")
    assert "no rule of this map takes" in message and tensor in message


@pytest.mark.parametrize("name,setting", [("qwen2", "add_qkv_bias"), ("qwen3", "qk_layernorm")])
def test_args_that_older_versions_lack(name, setting, ours, published, tmp_path):
    """The names of the weights tell it."""
    source, (file, saved) = str(tmp_path / "megatron"), args_in(ours(name))
    shutil.copytree(ours(name), source)
    delattr(saved["args"], setting)
    torch.save(saved, os.path.join(source, os.path.relpath(file, ours(name))))
    assert_loads_and_computes(convert(source, str(tmp_path / "back"), "--to", "safetensors", "--as", "hf"), published(name)[1])


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_the_base_of_rotary_positions_that_megatron_has_by_default(name, ours, tmp_path):
    source, (file, saved) = str(tmp_path / "megatron"), args_in(ours(name))
    shutil.copytree(ours(name), source)
    del saved["args"].rotary_base
    torch.save(saved, os.path.join(source, os.path.relpath(file, ours(name))))
    back = convert(source, str(tmp_path / "back"), "--to", "safetensors", "--as", "hf")
    with open(os.path.join(back, "config.json"), encoding="utf-8") as config:
        assert json.load(config)["rope_theta"] == 10000


LOST = [("qwen2", "decoder.layers.1.self_attention.linear_qkv.bias", "linear_qkv.bias\" at i = 1"),
        ("qwen3", "decoder.layers.1.self_attention.q_layernorm.weight", "with x = q at i = 1"),
        ("gpt2", "decoder.layers.2.input_layernorm.bias", "with p = bias at i = 2"), ("gpt2", "decoder.final_layernorm.bias", "decoder.final_layernorm.bias")]


@pytest.mark.parametrize("name,lost,said", LOST)
def test_tensors_that_one_layer_lost(name, lost, said, ours, tmp_path, out):
    middle = rewritten(ours(name), tmp_path / "megatron", lambda model: model.pop(lost))
    assert said in refused(middle, out, "--to", "safetensors", "--as", "hf")


@pytest.mark.parametrize("name,lost", [
    ("qwen2", "self_attn.q_proj.bias self_attn.k_proj.bias self_attn.v_proj.bias"), ("qwen3", "self_attn.q_norm.weight"), ("gpt2", "ln_1.bias")])
def test_tensors_that_one_layer_of_hugging_face_lost(name, lost, published, tmp_path, out):
    copy = str(tmp_path / "copy")
    shutil.copytree(published(name)[0], copy)
    tensors = tensors_in(copy)
    kept = {k: v for k, v in tensors.items() if ".1." not in k or not k.endswith(tuple(lost.split()))}
    assert len(tensors) - len(kept) == len(lost.split())
    save_file(kept, os.path.join(copy, "model.safetensors"), {"format": "pt"})
    assert "at i = 1, which other rules have" in refused(copy, out, "--to", "megatron", "--layout", "tp=1")


# ---- settings that change what is computed

def changed(folder, out, **settings):
    """A copy of a published folder with other settings in its config.json; ABSENT takes one away."""
    os.mkdir(out)
    for file in os.listdir(folder):
        if file != "config.json":
            shutil.copy(os.path.join(folder, file), out)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file) | settings
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump({k: v for k, v in config.items() if v is not ABSENT}, file)
    return str(out)


ABSENT = object()


def args_in(folder):
    [file, *_] = sorted(os.path.join(root, f) for root, _, files in os.walk(folder) for f in files if f == "model_optim_rng.pt")
    return file, torch.load(file, weights_only=False)


def over_megatron(name, folder, tmp_path):
    middle = convert(folder, str(tmp_path / "megatron"), "--to", "megatron", "--layout", "tp=1", "--as", MODELS[name][2])
    return vars(args_in(middle)[1]["args"]), convert(middle, str(tmp_path / "back"), "--to", "safetensors", "--as", MODELS[name][3])


def small(kind, **settings):
    import transformers
    config = getattr(transformers, f"{kind}Config")(**settings)
    torch.manual_seed(13)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return model


SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": 2,
         "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "max_position_embeddings": POSITIONS}
GPT2_SIZES = {"vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": HIDDEN, "n_layer": 2, "n_head": HEADS}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
TRANSLATED = {
    "mistral": ("llama", "Mistral", SIZES | {"sliding_window": 4}, {"window_size": (3, 0)}),
    "mistral-narrow": ("llama", "Mistral", SIZES | {"sliding_window": 2}, {"window_size": (1, 0)}),
    "qwen2": ("llama", "Qwen2", SIZES | QWEN_WINDOW, {"window_size": (3, 0), "add_qkv_bias": True}),
    "qwen3": ("llama", "Qwen3", SIZES | QWEN_WINDOW | {"head_dim": HEAD}, {"window_size": (3, 0), "qk_layernorm": True}),
    "mixtral": ("mixtral", "Mixtral", SIZES | {"sliding_window": 4, "num_local_experts": EXPERTS}, {"window_size": (3, 0)}),
    "gpt2-gelu": ("gpt2", "GPT2", GPT2_SIZES | {"activation_function": "gelu"}, {"bias_gelu_fusion": False}),
    "gpt2-gelu-new": ("gpt2", "GPT2", GPT2_SIZES, {"bias_gelu_fusion": True}),
    "gpt2-unscaled": ("gpt2", "GPT2", GPT2_SIZES | {"scale_attn_weights": False}, {"softmax_scale": 1.0}),
}


@pytest.mark.parametrize("case", TRANSLATED)
def test_what_both_can_say_is_translated(case, tmp_path):
    name, kind, settings, expected = TRANSLATED[case]
    model = small(kind, **settings)
    model.save_pretrained(str(tmp_path / "hf"))
    args, back = over_megatron(name, str(tmp_path / "hf"), tmp_path)
    assert {k: args.get(k) for k in expected} == expected and type(args.get("window_size")) in (tuple, type(None))
    assert_loads_and_computes_as(back, model)


def assert_loads_and_computes_as(folder, model):
    from transformers import AutoModelForCausalLM
    loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert type(loaded) is type(model)
    ids = torch.arange(24).reshape(2, 12) * 7 % VOCAB
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


COMPUTED = {"mistral": TRANSLATED["mistral"][2], "qwen2": SIZES, "qwen3": SIZES | {"head_dim": HEAD, "tie_word_embeddings": True},
            "mixtral": SIZES | {"num_local_experts": EXPERTS, "num_experts_per_tok": 3}, "gpt2": GPT2_SIZES | {"activation_function": "gelu"},
            "llama": SIZES | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
                                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}}


def test_megatron_computes_the_same(tmp_path):
    """Megatron-core's own models, by nothing but the arguments and weights that were written."""
    tokens, expected = torch.arange(24).reshape(2, 12) * 7 % VOCAB, {}
    for kind, settings in COMPUTED.items():
        name = {"qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}.get(kind, kind.capitalize())
        model = small(name, **settings)
        model.save_pretrained(str(tmp_path / kind))
        made = convert(str(tmp_path / kind), str(tmp_path / f"{kind}-megatron"), "--to", "megatron", "--layout", "tp=1")
        with torch.no_grad():
            expected[args_in(made)[0]] = model(tokens).logits
    [found] = megatron_run.load({"compute": tokens, "files": list(expected), "tp": 1, "pp": 1, "world": 1})
    for file, logits in expected.items():
        assert torch.allclose(found[file][..., :VOCAB], logits, atol=1e-5), file


@pytest.mark.parametrize("window", [1, 2, 4, 12])
def test_a_window_is_the_same_mask(window, monkeypatch):
    """Megatron-core's own mask (True is masked) of (window - 1, 0) is that of transformers (True is seen)."""
    from megatron.core.transformer import utils
    from transformers.masking_utils import sliding_window_causal_mask_function
    monkeypatch.setattr(torch, "ones", lambda *sizes, ones=torch.ones, **k: ones(*sizes, dtype=k.get("dtype")))  # no GPU here
    ours = ~utils.get_sliding_window_causal_mask(12, 12, (window - 1, 0))
    sees = sliding_window_causal_mask_function(window)
    assert all(bool(ours[q, k]) == bool(sees(0, 0, torch.tensor(q), torch.tensor(k))) for q in range(12) for k in range(12))


def test_gelu_that_is_fused_is_that_by_tanh():
    from megatron.core.fusions.fused_bias_gelu import bias_gelu
    from transformers.activations import ACT2FN
    x = torch.linspace(-4, 4, 101)
    fused = getattr(bias_gelu, "_torchdynamo_orig_callable", bias_gelu)(torch.zeros(101), x)  # not compiled first
    for name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        assert torch.allclose(fused, ACT2FN[name](x), atol=1e-6)
    assert not torch.allclose(fused, ACT2FN["gelu"](x), atol=1e-4)


# Of the config.json of published models.
PLAIN = {
    "mistral-0.1": ("llama", {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 4096,
                              "rope_theta": 10000.0, "rope_parameters": ABSENT}, (4095, 0)),
    "mistral-0.3": ("llama", {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}, None),
    "qwen2.5": ("qwen2", {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28, "layer_types": ABSENT}, None),
    "qwen3": ("qwen3", {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 36, "rope_scaling": None,
                        "attention_bias": False}, None),
    "llama-3": ("llama", {"pretraining_tp": 1, "rope_scaling": None, "attention_bias": False, "mlp_bias": False}, None),
    "llama-with-a-key-it-ignores": ("llama", {"sliding_window": 4096}, None),
    "mixtral": ("mixtral", {"sliding_window": None, "router_jitter_noise": 0.0, "output_router_logits": False}, None),
    "gpt2": ("gpt2", {"n_ctx": 1024, "scale_attn_weights": ABSENT, "reorder_and_upcast_attn": ABSENT, "activation_function": "gelu_new"}, None),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_settings_pass(case, published, tmp_path):
    name, settings, window = PLAIN[case]
    folder = changed(published(name)[0], tmp_path / "hf", **settings)
    args, back = over_megatron(name, folder, tmp_path)
    assert args.get("window_size") == window
    with open(os.path.join(back, "config.json"), encoding="utf-8") as file:
        assert json.load(file).get("sliding_window") == (window and window[0] + 1)


@pytest.mark.parametrize("name,settings,key", [
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}, "use_sliding_window"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": ABSENT}, "use_sliding_window"),
    ("qwen3", QWEN_WINDOW | {"layer_types": ["full_attention"] + ["sliding_attention"] * 3}, "layer_types"),
    ("qwen3", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config.quant_method"),
    ("mixtral", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config.quant_method"),
    ("gpt2", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config.quant_method"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_theta": 500.0}, "rope_parameters.rope_theta"),  # and another one there: which counts depends on the version
    ("llama", {"rope_parameters": ABSENT, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5000.0}}, "rope_parameters.rope_type"),
    ("mixtral", {"rope_parameters": ABSENT, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling.rope_type"),
    ("mixtral", {"num_experts_per_tok": 1}, "num_experts_per_tok"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
    ("gpt2", {"activation_function": "relu"}, "activation_function"),
])
def test_what_megatron_cannot_say_is_refused_by_name(name, settings, key, published, tmp_path, out):
    folder = changed(published(name)[0], tmp_path / "hf", **settings)
    message = refused(folder, out, "--to", "megatron", "--layout", "tp=1", "--as", MODELS[name][2])
    assert f"the input's setting `{key}` is " in message


def test_a_config_that_cannot_be_read_is_told_where_it_is_missed(published, tmp_path, out):
    folder = changed(published("llama")[0], tmp_path / "hf")
    with open(os.path.join(folder, "config.json"), "r+", encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        file.write('{"model_type": "llama", ' + text[1:])
    assert "config.json is kept as bytes only: key `model_type` appears twice" in refused(folder, out, "--to", "megatron")


@pytest.mark.parametrize("inner", [48, None])  # None: 4 * n_embd
def test_the_mlp_of_gpt2_has_the_size_that_its_config_tells(inner, tmp_path, out):
    from transformers import GPT2Config, GPT2LMHeadModel
    seeded("gpt2")
    folder = str(tmp_path / "hf")
    GPT2LMHeadModel(GPT2Config(**GPT2_SIZES | {"n_inner": 40})).save_pretrained(folder)
    wrong = changed(folder, tmp_path / "wrong", n_inner=inner)
    assert "has 40 here" in refused(wrong, out, "--to", "megatron", "--layout", "tp=2")
    file, state = args_in(convert(folder, out, "--to", "megatron", "--layout", "tp=2"))
    assert state["args"].ffn_hidden_size == 40, file


ANY_MODEL = {"window_attn_skip_freq": 2, "window_size": (0, 0), "qk_l2_norm": True, "softmax_type": "off-by-one", "softmax_scale": 0.5,
             "quick_geglu": True, "squared_relu": True, "glu_linear_offset": 1.0, "activation_func_clamp_value": 7.0,
             "apply_residual_connection_post_layernorm": True, "attention_output_gate": True, "multi_latent_attention": True,
             "apply_layernorm_1p": True, "layernorm_zero_centered_gamma": True, "experimental_attention_variant": "dsa",
             "linear_attention_freq": [1, 0], "normalization": "L2Norm"}
ROTARY = {"rotary_seq_len_interpolation_factor": 4, "no_rope_freq": [0, 0, 1, 0], "rotary_interleaved": True, "rotary_percent": 0.5}
MOE = {"moe_router_topk_scaling_factor": 2.5, "moe_router_num_groups": 2, "moe_router_group_topk": 1, "moe_router_score_function": "sigmoid",
       "moe_router_pre_softmax": True, "moe_router_load_balancing_type": "sinkhorn", "moe_apply_probs_on_input": True,
       "moe_expert_capacity_factor": 1.0, "moe_layer_freq": [1, 0, 1, 1], "moe_input_jitter_eps": 0.1, "use_rope_scaling": True,
       "moe_router_enable_expert_bias": True, "moe_latent_size": 16}
OURS = [("llama", ANY_MODEL | ROTARY | {"window_size": (4, 4), "no_rope_freq": 4}), ("mixtral", ANY_MODEL | ROTARY | MOE),
        ("gpt2", ANY_MODEL | {"qk_layernorm": True, "window_size": (4, 0)})]


def with_args(middle, out, settings):
    shutil.copytree(middle, out)
    file, saved = args_in(out)
    vars(saved["args"]).update(settings)
    torch.save(saved, file)
    return str(out)


@pytest.fixture(scope="module")
def ours(published, tmp_path_factory):
    """name → Megatron's files of that model, on one rank; each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = convert(published(name)[0], str(tmp_path_factory.mktemp("ours") / name), "--to", "megatron", "--layout", "tp=1",
                                 "--as", MODELS[name][2])
        return made[name]
    return get


@pytest.mark.parametrize("name,key,value", [(name, *item) for name, settings in OURS for item in settings.items()])
def test_what_hugging_face_cannot_say_is_refused_by_name(name, key, value, ours, tmp_path, out):
    source = with_args(ours(name), tmp_path / "megatron", {key: value})
    message = refused(source, out, "--to", "safetensors", "--as", MODELS[name][3])
    assert f"the input's setting `{key}" in message


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2"])
def test_defaults_of_megatron_core_pass(name, ours, tmp_path):
    """TransformerConfig's own defaults, where they are none of the model's sizes or of its family."""
    import dataclasses
    from megatron.core.transformer import TransformerConfig
    known = vars(args_in(ours(name))[1]["args"])
    defaults = {f.name: f.default for f in dataclasses.fields(TransformerConfig)
                if f.name not in known and isinstance(f.default, (bool, int, float, str, type(None)))}
    assert {"window_size", "qk_l2_norm", "softmax_type", "glu_linear_offset", "moe_router_score_function"} <= set(defaults)
    source = with_args(ours(name), tmp_path / "megatron", defaults | {"window_size": (-1, 0)})
    convert(source, str(tmp_path / "hf"), "--to", "safetensors", "--as", MODELS[name][3])


FIXTURE_NAMES = {"megatron_llama_tp_pp": ("megatron/llama", "hf_llama"), "megatron_gpt2_tied": ("megatron/gpt2", "hf_gpt2"),
                 "megatron_moe_ep": ("megatron/mixtral", "hf_mixtral"),
                 "megatron_llama_uneven_stages": ("megatron/llama", "hf_llama"),
                 "megatron_llama_vpp_plain_adam": ("megatron/llama", "hf_llama"),
                 "megatron_llama_buckets": ("megatron/llama", "hf_llama")}


def fixture_inputs():
    for fixture in FIXTURE_NAMES:
        folder = os.path.join(FIXTURES, fixture)
        if os.path.exists(os.path.join(folder, "expected_hf.safetensors")):
            for inside in sorted(os.listdir(folder)):
                if os.path.isdir(os.path.join(folder, inside)):
                    yield fixture, inside


@pytest.mark.parametrize("fixture,inside", list(fixture_inputs()))
def test_fixtures(fixture, inside, tmp_path):
    _, naming = FIXTURE_NAMES[fixture]
    folder = os.path.join(FIXTURES, fixture)
    out = convert(os.path.join(folder, inside), str(tmp_path / "hf"), "--to", "safetensors",
                  "--dtype", "bf16", "--as", naming, "--set", "vocab=101")
    expected = expected_tensors(os.path.join(folder, "expected_hf.safetensors"))
    found = tensors_in(out)
    wrong = [n for n in expected if n not in found or not torch.equal(found[n], expected[n])]
    assert not wrong and sorted(found) == sorted(expected)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        assert json.load(file)["vocab_size"] == 101
    from transformers import AutoModelForCausalLM
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
