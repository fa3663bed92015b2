"""Models saved by transformers now: whole, sharded, and what safetensors' own writer makes of odd tensors."""
import pytest
import torch
from safetensors.torch import save_file

from common import Consolidated, convert, differences


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
