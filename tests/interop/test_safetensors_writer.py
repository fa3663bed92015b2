"""What we write as safetensors, read by the reference library and by transformers."""
import json
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from common import convert, expected_tensors, refused, uckpt
from crc64 import crc64

DATA = os.path.join(os.path.dirname(__file__), "..", "data")


def tiny(kind):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    torch.manual_seed(5)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                                            num_attention_heads=4, num_key_value_heads=2))
    return GPT2LMHeadModel(GPT2Config(vocab_size=53, n_positions=16, n_embd=16, n_layer=2, n_head=2))


@pytest.mark.parametrize("way", ["direct", "hdf5"])
@pytest.mark.parametrize("size", ["1G", "16K"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_transformers_loads_it(kind, size, way, tmp_path):
    model = tiny(kind)
    source, out = str(tmp_path / "model"), str(tmp_path / "out")
    model.save_pretrained(source, max_shard_size="20KB")
    through = convert(source, str(tmp_path / "all.h5")) if way == "hdf5" else source
    convert(through, out, "--to", "safetensors", "--shard-size", size)
    files = sorted(name for name in os.listdir(out) if name.endswith(".safetensors"))
    assert (len(files) > 1) == (size == "16K") == os.path.exists(os.path.join(out, "model.safetensors.index.json"))
    if len(files) > 1:
        with open(os.path.join(out, "model.safetensors.index.json")) as index:
            weight_map = json.load(index)["weight_map"]
        assert sorted(set(weight_map.values())) == files
    shutil.copy(os.path.join(source, "config.json"), out)
    again, report = type(model).from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    tokens = torch.arange(12).reshape(2, 6)
    assert torch.equal(model.eval()(tokens).logits, again.eval()(tokens).logits)


@pytest.mark.parametrize("dtype, name", [("bf16", torch.bfloat16), ("fp16", torch.float16),
                                         ("f8_e4m3", torch.float8_e4m3fn), ("f8_e5m2", torch.float8_e5m2)])
def test_masters_are_cast_as_torch_casts(dtype, name, tmp_path):
    source = os.path.join(DATA, "deepspeed", "bf16-zero2-dp2")
    out = convert(os.path.join(source, "ckpt"), str(tmp_path / "x.safetensors"), "--dtype", dtype)
    ours, checked = load_file(out), 0
    for path, value in expected_tensors(os.path.join(source, "expected.safetensors")).items():
        if path.startswith("fp32/") and path[5:] in ours:
            assert ours[path[5:]].dtype == name
            assert torch.equal(ours[path[5:]].view(torch.uint8), value.to(name).view(torch.uint8)), path
            checked += 1
    assert checked > 25


def test_tied_names_and_alignment(tmp_path):
    out = convert(os.path.join(DATA, "deepspeed", "zero1-dp2", "ckpt"), str(tmp_path / "x.safetensors"))
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
        digests = metadata.pop("uckpt.crc64").split(" ")
        assert metadata == {"format": "pt", "head.weight": "emb.weight"}
        assert "head.weight" not in file.keys() and "emb.weight" in file.keys()
    with open(out, "rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        header = json.loads(raw.read(size))
        data = raw.read()
    assert size % 8 == 0
    places = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    assert digests == [f"{crc64(data[begin:end]):016x}" for begin, end in places]
    items = {"F32": 4, "I64": 8, "BOOL": 1}
    for tensor in header.values():
        if "dtype" in tensor:
            assert (8 + size + tensor["data_offsets"][0]) % items[tensor["dtype"]] == 0


@pytest.mark.parametrize("flags", [["--to", "safetensors"], ["--to", "dcp-hf"]])
def test_the_name_of_the_metadata_is_refused(flags, tmp_path):
    torch.save({"__metadata__": torch.ones(2), "w": torch.ones(1)}, tmp_path / "in.pt")
    assert "__metadata__" in refused(str(tmp_path / "in.pt"), str(tmp_path / "out"), *flags)
    assert convert(str(tmp_path / "in.pt"), str(tmp_path / "out"), "--drop", "__metadata__", *flags)


def test_a_name_that_is_no_text_is_named(tmp_path):
    source, out = str(tmp_path / "x.h5"), str(tmp_path / "x.safetensors")
    with h5py.File(source, "w") as file:
        for name in (b"a\xff", b"b"):
            file.create_dataset(name, data=np.arange(4, dtype="f4"))
    assert "::a\\xff: its name is not UTF-8" in refused(source, out, "--to", "safetensors")
    convert(source, out, "--to", "safetensors", "--drop", "a*")
    assert list(load_file(out)) == ["b"]


@pytest.mark.parametrize("to", ["safetensors", "dcp-hf"])
@pytest.mark.parametrize("way", ["direct", "hdf5"])
def test_a_tokenizer_comes_along(way, to, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    source, out = str(tmp_path / "model"), str(tmp_path / "out")
    tiny("llama").save_pretrained(source)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(source)
    (tmp_path / "model" / "vocab.txt").touch()
    saved = set(os.listdir(source)) - {"model.safetensors"}
    through = convert(source, str(tmp_path / "all.h5")) if way == "hdf5" else source
    result = uckpt("convert", through, out, "--to", to, "--dtype", "bf16")
    assert result.code == 0 and "left out" not in result.error, result.error
    for name in saved - {"config.json"}:
        with open(os.path.join(source, name), "rb") as old, open(os.path.join(out, name), "rb") as new:
            assert old.read() == new.read(), name
    assert AutoTokenizer.from_pretrained(out)("a").input_ids == [1]
