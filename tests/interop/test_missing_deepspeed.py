"""A file of weights becomes a checkpoint from which DeepSpeed goes on as it would from the same weights with a new optimizer."""
import pytest
import torch
from safetensors.torch import save_file

from common import convert
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
