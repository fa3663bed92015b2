"""Models saved by transformers now: whole, sharded, and what safetensors' own writer makes of odd tensors."""
import os
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from common import Consolidated, convert, differences, refused, uckpt


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_pretrained(shard, dtype, tmp_path, out):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2)).to(dtype)
    model.save_pretrained(str(tmp_path / "model"), max_shard_size=shard)
    convert(str(tmp_path / "model"), out)
    with Consolidated(out) as file:
        assert not differences((name, file.dataset("param", name), value, {})
                               for name, value in model.state_dict().items())


def test_safetensors_file(tmp_path, out):
    tensors = {"a": torch.randn(3, 4), "empty": torch.empty(0, 2), "zero_dim": torch.tensor(3), "h": torch.randn(5).half(),
               "i": torch.arange(5, dtype=torch.int16), "c": torch.randn(2, dtype=torch.complex64)}
    path = str(tmp_path / "x.safetensors")
    save_file(tensors, path, {"format": "pt"})
    convert(path, out)
    with Consolidated(out) as file:
        assert not differences((name, file.plain(name), value, {}) for name, value in tensors.items())


@pytest.mark.parametrize("files", [1, 2])
def test_storage_writer_of_whole_tensors(files, tmp_path):
    """Without save_distributed the metadata also says where boxes begin: each tensor's at its own beginning."""
    state = {"w": torch.randn(3, 4), "b": torch.randn(3).bfloat16(), "s": torch.tensor(2.), "e": torch.empty(0, 3)}
    folder = str(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = dcp.HuggingFaceStorageWriter(folder, fqn_to_index_mapping={n: 1 + i % files for i, n in enumerate(state)})
        dcp.save(state, storage_writer=writer, no_dist=True)
    loaded = load_file(convert(folder, str(tmp_path / "o.safetensors")))
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    for name in os.listdir(folder):
        if name.endswith(".json"):
            os.remove(os.path.join(folder, name))
    [whole] = [n for n in os.listdir(folder)][:1]
    shard = str(tmp_path / "shard-00001-model-00001-of-00001.safetensors")
    os.rename(os.path.join(folder, whole), shard)
    assert "one rank's shard" in refused(shard, str(tmp_path / "o.pt"))


def test_each_snapshot_of_a_cache(tmp_path):
    cache = tmp_path / "models--x"
    for name in ("blobs", "refs", "snapshots/aaa", "snapshots/bbb"):
        os.makedirs(cache / name)
    for blob, snapshot, value in (("1", "aaa", 0.), ("2", "bbb", 1.)):
        save_file({"w": torch.full((3,), value)}, str(cache / "blobs" / blob))
        os.symlink(f"../../blobs/{blob}", cache / "snapshots" / snapshot / "model.safetensors")
    (cache / "refs" / "main").write_text("aaa")
    for path, value in ((cache, 0.), (cache / "snapshots" / "aaa", 0.), (cache / "snapshots" / "bbb", 1.)):
        out = convert(str(path), str(tmp_path / f"{path.name}.safetensors"))
        assert load_file(out)["w"].tolist() == [value] * 3
    os.remove(cache / "snapshots" / "aaa" / "model.safetensors")
    save_file({"w": torch.ones(3)}, str(tmp_path / "outside"))
    os.symlink(tmp_path / "outside", cache / "snapshots" / "aaa" / "model.safetensors")
    assert "outside" in refused(str(cache / "snapshots" / "aaa"), str(tmp_path / "o.pt"))


def test_the_bin_file_of_a_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"w": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin" in uckpt("ls", str(tmp_path)).error
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"w": "pytorch_model.bin"}}')
    for path in (tmp_path, index):
        assert "sharded .bin files" in uckpt("ls", str(path)).error


@pytest.mark.parametrize("ending", ["_scale_inv", "_scale"])
def test_quantized_weights_are_not_cast(ending, tmp_path, out):
    """Their numbers are something else without the scales, which a cast does not apply."""
    state = {"a.weight": torch.randn(4, 4).to(torch.float8_e4m3fn), "a.weight" + ending: torch.rand(1, 1),
             "b.weight": torch.randn(3)}
    path = str(tmp_path / "model.safetensors")
    save_file(state, path)
    error = refused(path, out, "--dtype", "bf16")
    assert "a.weight: it is quantized" in error and f"`a.weight{ending}`" in error, error
    assert "it is quantized" in refused(path, str(tmp_path / "o.safetensors"), "--dtype", "fp32:a.*")
    assert "it is quantized" in refused(path, str(tmp_path / "run"), "--to", "deepspeed-universal", "--missing", "zero")
    kept = load_file(convert(path, str(tmp_path / "kept.safetensors"), "--dtype", "keep:a.*", "--dtype", "bf16"))
    assert torch.equal(kept["a.weight"].view(torch.uint8), state["a.weight"].view(torch.uint8))
    assert kept["b.weight"].dtype == torch.bfloat16
    del state["a.weight" + ending]   # a plain type of weights
    save_file(state, path)
    cast = load_file(convert(path, str(tmp_path / "cast.safetensors"), "--dtype", "bf16"))
    assert torch.equal(cast["a.weight"], state["a.weight"].bfloat16())
