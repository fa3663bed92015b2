"""Llama as torchtitan saves it, to Hugging Face and back: transformers must compute what the weights mean in torchtitan."""
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from common import Consolidated, convert, differences, expected_tensors
from test_dcp import save
from test_dcp_writer import check_items, chunks, merged, to_dcp
from test_dcp_writer import differences as tree_differences

HIDDEN, HEADS, GROUPS, FFN, VOCAB, LAYERS, THETA, EPS = 32, 4, 2, 44, 101, 2, 10000.0, 1e-6
HEAD = HIDDEN // HEADS
SPEC = ("--spec", "torchtitan/llama", f"--set=heads={HEADS}", f"--set=groups={GROUPS}")
TO_HF = (*SPEC, "--naming", "torchtitan_llama", "--as", "hf_llama")
FROM_HF = (*SPEC, "--naming", "hf_llama", "--as", "torchtitan_llama")


def weights():
    torch.manual_seed(8)
    shapes = {"tok_embeddings.weight": (VOCAB, HIDDEN), "norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        shapes |= {f"layers.{i}.attention.wq.weight": (HIDDEN, HIDDEN), f"layers.{i}.attention.wk.weight": (GROUPS * HEAD, HIDDEN),
                   f"layers.{i}.attention.wv.weight": (GROUPS * HEAD, HIDDEN), f"layers.{i}.attention.wo.weight": (HIDDEN, HIDDEN),
                   f"layers.{i}.feed_forward.w1.weight": (FFN, HIDDEN), f"layers.{i}.feed_forward.w2.weight": (HIDDEN, FFN),
                   f"layers.{i}.feed_forward.w3.weight": (FFN, HIDDEN), f"layers.{i}.attention_norm.weight": (HIDDEN,),
                   f"layers.{i}.ffn_norm.weight": (HIDDEN,)}
    return {name: torch.randn(shape) / 3 for name, shape in shapes.items()}


def rotated(x, angles):
    """Pairs of neighbours turned, as torchtitan and Meta do it: x is [tokens, heads, head]."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)


def logits(w, ids):
    angles = torch.outer(torch.arange(len(ids)).float(), THETA ** (-torch.arange(0, HEAD, 2).float() / HEAD))
    x = w["tok_embeddings.weight"][ids]
    for i in range(LAYERS):
        layer = {name.removeprefix(f"layers.{i}."): t for name, t in w.items() if name.startswith(f"layers.{i}.")}
        y = F.rms_norm(x, (HIDDEN,), layer["attention_norm.weight"], EPS)
        q, k, v = ((y @ layer[f"attention.w{n}.weight"].T).view(len(ids), -1, HEAD) for n in "qkv")
        q, k = rotated(q, angles), rotated(k, angles)
        k, v = (t.repeat_interleave(HEADS // GROUPS, 1) for t in (k, v))
        o = F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v)), is_causal=True)
        x = x + o.transpose(0, 1).reshape(len(ids), HIDDEN) @ layer["attention.wo.weight"].T
        y = F.rms_norm(x, (HIDDEN,), layer["ffn_norm.weight"], EPS)
        gated = F.silu(y @ layer["feed_forward.w1.weight"].T) * (y @ layer["feed_forward.w3.weight"].T)
        x = x + gated @ layer["feed_forward.w2.weight"].T
    return F.rms_norm(x, (HIDDEN,), w["norm.weight"], EPS) @ w["output.weight"].T


@pytest.fixture(scope="module")
def titan(tmp_path_factory):
    """(weights, a checkpoint with them and an optimizer's flattened states)."""
    model = weights()
    states = {f"state.{name}.exp_avg": t + 1 for name, t in model.items()}
    steps = {f"state.{name}.step": torch.tensor(3.0) for name in model}
    folder = save({**model, **states, **steps, "train_state": {"step": 3}}, tmp_path_factory.mktemp("titan") / "step-3")
    return model, folder


def test_transformers_computes_the_same(titan, tmp_path):
    model, folder = titan
    found = expected_tensors(convert(folder, str(tmp_path / "hf.safetensors"), "--states", "param", *TO_HF))
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, rms_norm_eps=EPS,
                         num_attention_heads=HEADS, num_key_value_heads=GROUPS, tie_word_embeddings=False)
    llama = LlamaForCausalLM(config).eval()
    llama.load_state_dict(found, strict=True)
    ids = torch.arange(11) * 7 % VOCAB
    with torch.no_grad():
        assert torch.allclose(llama(input_ids=ids[None]).logits[0], logits(model, ids), rtol=1e-4, atol=1e-4)


def test_moments_go_with_their_weights(titan, out):
    model, folder = titan
    convert(folder, out, *TO_HF)
    name = "layers.1.attention.wk.weight"
    turned = (model[name] + 1).view(GROUPS, HEAD // 2, 2, HIDDEN).transpose(1, 2).reshape(GROUPS * HEAD, HIDDEN)
    with Consolidated(out) as file:
        assert not differences([(name, file.dataset("exp_avg", "model.layers.1.self_attn.k_proj.weight"), turned, {})])


def test_back_to_torchtitan(titan, tmp_path):
    """By way of a state dict, whose keys stand at the top, as torchtitan has them."""
    model, folder = titan
    hf = convert(folder, str(tmp_path / "hf"), "--to", "safetensors", "--states", "param", *TO_HF)
    out = to_dcp(convert(hf, str(tmp_path / "state.pt"), *FROM_HF), str(tmp_path / "out"), "--layout", "dp=2")
    check_items(out)
    assert not tree_differences(merged(out, tmp_path), model)


def test_cut_over_tensor_parallel_ranks(titan, tmp_path):
    model, folder = titan
    out = to_dcp(folder, str(tmp_path / "out"), "--layout", "dp=2,tp=2", *SPEC, "--naming", "torchtitan_llama")
    boxes = chunks(out)
    assert boxes["layers.0.attention.wo.weight"] == [((a, b), (16, 16)) for a in (0, 16) for b in (0, 16)]
    assert boxes["layers.0.attention.wq.weight"] == [((a, 0), (8, HIDDEN)) for a in (0, 8, 16, 24)]
    assert not tree_differences(merged(out, tmp_path), merged(folder, tmp_path))
