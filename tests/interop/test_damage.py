"""Checkpoints with files missing, extra, cut, doubled or from another run: named, refused, nothing written."""
import os
import shutil

import pytest
import torch

from common import DATA, convert, refused, uckpt

FIXTURES = os.path.join(DATA, "deepspeed")


@pytest.fixture
def ckpt(tmp_path):
    """copy(name) gives the tag folder of a copy of that fixture."""
    def copy(name, to="ckpt"):
        folder = tmp_path / to
        shutil.copytree(os.path.join(FIXTURES, name, "ckpt"), folder)
        latest = next(folder.glob("latest*"))
        return folder / latest.read_text().strip()
    return copy


def whole(tag):
    return str(tag.parent)


OPTIM = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"


@pytest.mark.parametrize("name,victim", [
    ("zero1-dp2", OPTIM.format(1)), ("zero2-dp3", OPTIM.format(0)), ("zero2-dp3", OPTIM.format(2)),
    ("zero3-dp4-subgroups", OPTIM.format(3)), ("zero3-dp4-subgroups", "zero_pp_rank_2_mp_rank_00_model_states.pt"),
    ("bf16-zero2-dp2", "bf16_" + OPTIM.format(1)), ("pipe-pp2-dp2", "layer_03-model_00-model_states.pt"),
    ("pipe-pp2-dp2", "mp_rank_01_model_states.pt"), ("moe-ep2-zero1-dp4", "layer_0_expert_2_mp_rank_00_model_states.pt"),
    ("moe-ep2-nozero-dp2", "expp_rank_1_mp_rank_00_optim_states.pt"), ("zero1-dp2", "mp_rank_00_model_states.pt")])
def test_missing_file_is_named(name, victim, ckpt, out):
    tag = ckpt(name)
    (tag / victim).unlink()
    assert victim in refused(whole(tag), out)


@pytest.mark.parametrize("name", ["zero1-dp2", "zero2-dp3", "zero3-dp2", "zero3-dp4-subgroups", "bf16opt-zero1-dp2",
                                  "zero1-dp2-elastic", "zero1-dp2-legacy-pickle"])
def test_any_missing_optimizer_file(name, ckpt, out):
    tag = ckpt(name)
    for victim in sorted(p for p in tag.iterdir() if "optim_states" in p.name):
        data = victim.read_bytes()
        victim.unlink()
        assert victim.name in refused(whole(tag), out)
        victim.write_bytes(data)
    convert(whole(tag), out)


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
@pytest.mark.parametrize("name", ["zero2-dp3", "zero3-dp2", "zero1-dp2-legacy-pickle"])
def test_truncated_file_is_named(name, keep, ckpt, out):
    tag = ckpt(name)
    victim = tag / OPTIM.format(1)
    victim.write_bytes(victim.read_bytes()[:keep])
    assert victim.name in refused(whole(tag), out)


def test_extra_rank_of_a_larger_run(ckpt, out):
    """Left over from a run on more ranks: the files say how many wrote them, so it is left out, and said."""
    tag = ckpt("zero2-dp3")
    shutil.copy(tag / OPTIM.format(2), tag / OPTIM.format(3))
    result = uckpt("convert", whole(tag), out)
    assert result.code == 0 and OPTIM.format(3) in result.error


@pytest.mark.parametrize("name,prefix", [("zero1-dp2", ""), ("zero2-dp3", ""), ("zero3-dp2", ""), ("bf16-zero3-dp2", "bf16_"),
                                         ("zero2-dp2-roundrobin", ""), ("zero1-dp2-elastic", "")])
def test_same_rank_twice(name, prefix, ckpt, out):
    """One rank's file under another rank's name: same size, same layout, other numbers."""
    tag = ckpt(name)
    names = [prefix + OPTIM.format(0), prefix + OPTIM.format(1)]
    shutil.copy(tag / names[0], tag / names[1])
    message = refused(whole(tag), out)
    assert any(name in message for name in names)


@pytest.mark.parametrize("name,other,victim", [
    ("zero1-dp2", "zero2-dp2-paramalign", OPTIM.format(1)),   # other stage
    ("zero2-dp3", "zero1-dp2", OPTIM.format(1)),              # other number of ranks
    ("zero3-dp2", "zero3-dp4-subgroups", OPTIM.format(1)),    # other sub-groups
    ("zero1-dp2", "zero1-dp2-elastic", OPTIM.format(1)),      # other form
])
def test_mixed_runs(name, other, victim, ckpt, out):
    tag, foreign = ckpt(name), ckpt(other, "other")
    shutil.copy(foreign / victim, tag / victim)
    assert victim in refused(whole(tag), out)


def test_model_file_of_another_run(ckpt, out):
    tag, foreign = ckpt("zero1-dp2"), ckpt("moe-ep2-zero2-dp2", "other")
    shutil.copy(foreign / "mp_rank_00_model_states.pt", tag / "mp_rank_00_model_states.pt")
    refused(whole(tag), out)


def test_empty_folder(tmp_path, out):
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), out)


def test_latest_names_a_missing_tag(ckpt, out):
    tag = ckpt("zero1-dp2")
    (tag.parent / "latest").write_text("global_step99")
    assert "global_step99" in refused(whole(tag), out)


@pytest.mark.parametrize("text", ["../../etc", "/etc", "a\nb", ""])
def test_latest_cannot_lead_outside(text, ckpt, out):
    tag = ckpt("zero1-dp2")
    (tag.parent / "latest").write_text(text)
    refused(whole(tag), out)


def test_universal_state_missing(ckpt, out):
    tag = ckpt("universal-zero1-dp2")
    (tag / "zero" / "norm.weight" / "exp_avg.pt").unlink()
    assert "norm.weight" in refused(whole(tag), out)


def test_universal_copy_of_a_buffer(ckpt, out):
    """DeepSpeed's converter writes buffers twice. As with ranks whose buffers differ, a difference is a warning; damage is none."""
    tag = ckpt("universal-zero1-dp2")
    victim = tag / "zero" / "inv_freq" / "fp32.pt"
    value = torch.load(victim, weights_only=False)
    tensor = value["param"] if isinstance(value, dict) else value
    tensor[3] += 1
    torch.save(value, victim)
    assert "the copy in zero/inv_freq/fp32.pt differs in 1 of 11 elements" in uckpt("convert", whole(tag), out).error
    os.remove(out)
    victim.write_bytes(victim.read_bytes()[:-200])
    assert "zero/inv_freq/fp32.pt" in refused(whole(tag), out)


def test_universal_shape_differs(ckpt, out):
    """A parameter's three states must have one shape."""
    tag = ckpt("universal-zero1-dp2")
    shutil.copy(tag / "zero" / "emb.weight" / "exp_avg.pt", tag / "zero" / "norm.weight" / "exp_avg.pt")
    assert "norm.weight" in refused(whole(tag), out)
