"""Models saved by transformers now: whole, sharded, and what safetensors' own writer makes of odd tensors."""
import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import get_model_state_dict

from common import DATA, Consolidated, convert, differences, refused, uckpt


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


def test_ranks_that_wrote_over_each_other(tmp_path, out):
    """FSDP's parts without save_distributed: the file is one rank's, here the first one's, and the index counts all."""
    folder = str(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"w": torch.randn(6, 4)}, storage_writer=dcp.HuggingFaceStorageWriter(folder), no_dist=True)
    [path] = Path(folder).glob("*.safetensors")
    with safe_open(path, "pt") as file:
        metadata, rows = file.metadata(), file.get_tensor("w")[:2].clone()
    save_file({"w": rows}, path, metadata)
    message = refused(folder, out)
    assert "promises 96 bytes of tensors, found 32" in message and "save_distributed=True" in message


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


@pytest.fixture
def bins(tmp_path):
    """A small model in .bin files, as huggingface_hub shards it: its folder, and its tensors."""
    from huggingface_hub import save_torch_model
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2))
    folder = tmp_path / "models--x" / "snapshots" / "aaa"
    folder.mkdir(parents=True)
    save_torch_model(model, str(folder), max_shard_size="20KB", safe_serialization=False)
    model.config.save_pretrained(str(folder))
    return folder, model.state_dict()


def test_bin_files_of_a_model(bins, tmp_path, out):
    folder, state = bins
    shards = sorted(name for name in os.listdir(folder) if name.endswith(".bin"))
    index = folder / "pytorch_model.bin.index.json"
    assert len(shards) > 2 and index.exists()
    convert(str(folder), out)
    with Consolidated(out) as file:
        assert not differences((name, file.dataset("param", name), value, {}) for name, value in state.items())
        assert file.file.attrs["source_kind"] == "hf-bin" and "config.json" in file.file["objects"]
    new = convert(str(index), str(tmp_path / "new"), "--to", "safetensors", "--dtype", "bf16")
    loaded = load_file(os.path.join(new, "model.safetensors"))
    assert all(torch.equal(loaded[name], value.bfloat16()) for name, value in state.items())
    assert os.path.exists(os.path.join(new, "config.json"))
    assert str(index) in uckpt("ls", str(folder / shards[0])).error

    (folder.parent.parent / "blobs").mkdir()   # the cache in which it was fetched
    for path in (folder, folder.parent.parent):
        assert uckpt("sum", str(path)).text == uckpt("sum", out).text


def test_bin_files_that_are_not_as_the_index_says(bins, out):
    folder, _ = bins
    first, second, *_ = sorted(name for name in os.listdir(folder) if name.endswith(".bin"))
    kept = (folder / second).read_bytes()
    os.remove(folder / second)
    assert f"{second} is missing" in refused(str(folder), out)
    torch.save({"w": torch.ones(3)}, folder / second)
    assert "the index promises this tensor" in refused(str(folder), out)
    (folder / second).write_bytes((folder / first).read_bytes())
    assert f"in two files: {first} and {second}" in refused(str(folder), out)
    (folder / second).write_bytes(kept[:-100])
    assert second in refused(str(folder), out)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace(first, f"../{first}"))
    assert "expected the name of a file in the folder of the index" in refused(str(index), out)


def test_one_bin_file_and_what_lies_beside_it(tmp_path, out):
    weight = torch.randn(4, 3)
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "pytorch_model.bin")
    torch.save({"lr": 1}, tmp_path / "training_args.bin")
    assert "training_args.bin" in uckpt("ls", str(tmp_path)).error
    convert(str(tmp_path), out)
    with Consolidated(out) as file:
        assert file.file["param/a.weight"] == file.file["param/b.weight"]
        assert not differences([("a.weight", file.dataset("param", "a.weight"), weight, {})])
    save_file({"c": weight}, str(tmp_path / "model.safetensors"))   # the same model in the newer format
    assert uckpt("ls", str(tmp_path)).text.split()[6] == "c"


def test_an_index_of_a_variant(tmp_path):
    save_file({"w": torch.ones(3)}, str(tmp_path / "model.fp16-00001-of-00002.safetensors"))
    save_file({"v": torch.ones(2)}, str(tmp_path / "model.fp16-00002-of-00002.safetensors"))
    (tmp_path / "model.safetensors.index.fp16.json").write_text(
        '{"weight_map": {"w": "model.fp16-00001-of-00002.safetensors", "v": "model.fp16-00002-of-00002.safetensors"}}')
    for path in (tmp_path, tmp_path / "model.safetensors.index.fp16.json"):
        assert "2 tensors" in uckpt("ls", str(path)).text


def test_the_configuration_stays_with_the_shards_of_ranks(tmp_path):
    """As transformers' save_pretrained(distributed_checkpoint=True) leaves them, and there and back."""
    model = os.path.join(DATA, "torch/hf_llama_tied/model")
    shards = convert(model, str(tmp_path / "shards"), "--to", "dcp-hf", "--layout", "dp=3")
    back = convert(shards, str(tmp_path / "back"), "--to", "safetensors")
    lost = shutil.copytree(shards, str(tmp_path / "lost"))
    os.remove(os.path.join(lost, "shard-00003-model-00001-of-00001.safetensors"))
    assert "(vocab_size): those of further ranks are missing" in refused(lost, str(tmp_path / "lost.h5"))
    for name in ("config.json", "generation_config.json"):
        want = Path(model, name).read_text()
        assert Path(shards, name).read_text() == want == Path(back, name).read_text()
    from transformers import AutoModelForCausalLM
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (back, model))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    cast = convert(model, str(tmp_path / "cast"), "--to", "dcp-hf", "--dtype", "bf16")
    assert [json.loads(Path(at, "config.json").read_text())["dtype"] for at in (model, cast)] == ["float32", "bfloat16"]


def test_a_tied_model_loads_a_distributed_checkpoint(tmp_path):
    """Its state dict has both names of the embeddings, its file has one."""
    source = os.path.join(DATA, "torch/hf_llama_tied/model")
    folder = str(tmp_path / "dcp")
    said = uckpt("convert", source, folder, "--to", "dcp").error
    assert "DefaultLoadPlanner(allow_partial_load=True)" in said
    from transformers import AutoConfig, AutoModelForCausalLM
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
    planner = dcp.DefaultLoadPlanner(allow_partial_load=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load({"model": get_model_state_dict(model)}, checkpoint_id=folder, planner=planner, no_dist=True)
    theirs = AutoModelForCausalLM.from_pretrained(source).state_dict()
    assert "lm_head.weight" in theirs and all(torch.equal(theirs[n], t) for n, t in model.state_dict().items())
    whole = str(tmp_path / "whole.pt")
    torch.save(theirs, whole)
    assert "allow_partial_load" not in uckpt("convert", whole, str(tmp_path / "again"), "--to", "dcp").error


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
