"""`--to megatron`: legacy Megatron checkpoints for any mesh, against numpy and against Megatron-core that loads them."""
import functools
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import megatron_run
from common import DATA, convert, expected_tensors, refused, uckpt
from megatron_run import STATES, cut, layers_of, number, numbers

ITERATION = "iter_0000120"
OPTIMIZER_KEYS = {"param": "fp32_param", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def fixture(name):
    return os.path.join(DATA, "torch", "megatron_" + name)


def to_megatron(source, out, layout, *flags):
    return convert(source, out, "--to", "megatron", "--layout", layout, *flags)


def load(*path):
    return torch.load(os.path.join(*path), weights_only=False)


@functools.lru_cache
def truth(name):
    """({logical name: {"model", "param", "exp_avg", "exp_avg_sq"}}, what expected.json says)."""
    tensors = expected_tensors(os.path.join(fixture(name), "expected.safetensors"))
    with open(os.path.join(fixture(name), "expected.json")) as file:
        said = json.load(file)
    out = {}
    for key, tensor in tensors.items():
        if key.startswith("model."):
            states = {s: tensors.get(f"optimizer.{k}.{key[6:]}") for s, k in OPTIMIZER_KEYS.items()}
            out[key[6:]] = {"model": tensor, **states}
    said["config"]["layers"] = said["parallel"].get("layers", said["config"]["layers"])
    said["config"]["swiglu"] = not said["parallel"].get("gpt2", False)
    return out, said


def bits(tensor):
    """numpy knows no bfloat16: its bits do as well."""
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def same(found, expected):
    assert tuple(found.shape) == expected.shape, f"{tuple(found.shape)}, expected {expected.shape}"
    assert np.array_equal(bits(found.contiguous()).reshape(-1), expected.reshape(-1))


class Mesh:
    """The ranks of a target, and what each must hold."""

    def __init__(self, config, layers=None, tp=1, pp=1, vp=1, ep=1, etp=None, stages=None, tied=False, vocab=None):
        self.tp, self.pp, self.vp, self.ep, self.etp = tp, pp, vp, ep, etp or tp
        self.stages = stages or [config["layers"] // pp] * pp
        self.config, self.tied = dict(config, vocab=vocab or config["vocab"]), tied

    def layout(self):
        text = f"tp={self.tp},pp={self.pp},vp={self.vp},ep={self.ep}"
        return text if self.etp == self.tp else text + f",etp={self.etp}"

    def folder(self, tp, pp, ep):
        return "mp_rank_%02d" % tp + ("_%03d" % pp if self.pp > 1 else "") + ("_%03d" % ep if self.ep > 1 else "")

    def logical(self, name, pp, vp, ep):
        """The whole tensor that a rank calls `name`."""
        if name == "output_layer.weight" and self.tied:
            return "embedding.word_embeddings.weight"
        local = numbers(name)
        if not local:
            return name
        local[0] = layers_of(self.stages, self.vp, pp, vp)[local[0]]
        if len(local) > 1:
            local[1] += ep * (self.config["experts"] // self.ep)
        return number(name, local)

    def held(self, whole, state, name, tp, pp, vp, ep, etp):
        logical = self.logical(name, pp, vp, ep)
        return cut(logical, bits(whole[logical][state]), self.config, self.tp, tp, self.etp, etp)

    def names(self, whole, pp, vp, ep):
        """What a rank must have, whatever its order."""
        out = set()
        layers = layers_of(self.stages, self.vp, pp, vp)
        per_rank = self.config["experts"] // self.ep
        first, last = (pp, vp) == (0, 0), (pp, vp) == (self.pp - 1, self.vp - 1)
        for name in whole:
            at = numbers(name)
            if at and at[0] in layers and (len(at) < 2 or at[1] // per_rank == ep):
                out.add(number(name, [layers.index(at[0])] + [a % per_rank for a in at[1:]]))
            elif not at and (first if name.startswith("embedding.") else last):
                out.add(name)
        if self.tied and last and self.pp > 1:
            out.add("output_layer.weight")
        return out

    def files(self):
        """(tp, pp, ep, etp) of each folder, and whether it has the dense and the experts' states."""
        experts = self.etp * self.ep
        seen = {}
        for rank in range(np.lcm(self.tp, experts)):
            at = (rank % self.tp, rank // self.etp % self.ep)
            seen.setdefault(at, (rank % self.etp, rank // self.tp == 0, rank // experts == 0))
        return [(tp, pp, ep, *rest) for pp in range(self.pp) for (tp, ep), rest in seen.items()]


def chunks(state):
    return [state["model"]] if "model" in state else [state[k] for k in sorted(state) if k.startswith("model")]


def parameters(chunk):
    return {k: v for k, v in chunk.items() if not k.endswith("_extra_state")}


def flat_positions(held, shared):
    """{name: start} in the coalesced form of one buffer with one bucket, and its length."""
    at, base, out = 0, 0, {}
    for name in reversed(held):
        at = base + -(-(at - base) // 64) * 64
        if name in shared and out:
            base = at
        out[name] = at
        at += held[name].numel()
        if name in shared:
            base = at
    return out, at


def check(folder, whole, mesh, distributed=True):
    """Every file's weights and states, by numpy's cuts."""
    listed = sorted(os.listdir(folder))
    assert listed == sorted({mesh.folder(tp, pp, ep) for tp, pp, ep, *_ in mesh.files()})
    for tp, pp, ep, etp, dense, expert in mesh.files():
        where = os.path.join(folder, mesh.folder(tp, pp, ep))
        state = load(where, "model_optim_rng.pt")
        assert len(chunks(state)) == mesh.vp
        for vp, chunk in enumerate(chunks(state)):
            held = parameters(chunk)
            assert set(held) == mesh.names(whole, pp, vp, ep)
            for name, tensor in held.items():
                same(tensor, mesh.held(whole, "model", name, tp, pp, vp, ep, etp))
        if distributed:
            check_flat(where, state, whole, mesh, (tp, pp, ep, etp), dense, expert)


def check_flat(where, state, whole, mesh, place, dense, expert):
    tp, pp, ep, etp = place
    saved = load(where, "distrib_optim.pt")
    has_experts = mesh.ep > 1
    optimizers = saved if has_experts else [saved]
    assert isinstance(saved, list) == has_experts
    shared = {"embedding.word_embeddings.weight", "output_layer.weight"} if mesh.tied and mesh.pp > 1 else set()
    for of_experts, optimizer in enumerate(optimizers):
        if not (expert if of_experts else dense):
            assert optimizer is None
            continue
        assert optimizer.pop("buckets_coalesced") is True
        for vp, chunk in enumerate(chunks(state)):
            held = {n: t for n, t in parameters(chunk).items() if (has_experts and ".experts." in n) == bool(of_experts)}
            (key, buffer), = optimizer[vp].items()
            assert key == (torch.bfloat16, torch.float32)
            starts, length = flat_positions(held, shared)
            assert buffer["numel_unpadded"] == length
            for kind in STATES:
                assert buffer[kind].shape == (length,) and buffer[kind].dtype == torch.float32
                covered = torch.zeros(length, dtype=torch.bool)
                for name, start in starts.items():
                    expected = mesh.held(whole, kind, name, tp, pp, vp, ep, etp)
                    same(buffer[kind][start:start + expected.size].reshape(expected.shape), expected)
                    covered[start:start + expected.size] = True
                assert not buffer[kind][~covered].any(), "gaps are zeros"


def equal(a, b):
    """Bit for bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(
            torch.from_numpy(bits(a.contiguous())), torch.from_numpy(bits(b.contiguous())))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    return a == b or vars(a) == vars(b)


def test_there_and_back(tmp_path):
    whole, said = truth("llama_tp_pp")
    source = os.path.join(fixture("llama_tp_pp"), "legacy")
    vocab = said["padded_vocab"]   # the true one is not in the arguments
    for tp, pp in ((1, 4), (4, 1), (2, 2)):
        mesh = Mesh(said["config"], tp=tp, pp=pp, vocab=vocab)
        source = to_megatron(source, str(tmp_path / f"tp{tp}"), mesh.layout())
        with open(os.path.join(source, "latest_checkpointed_iteration.txt")) as file:
            assert file.read() == "120"
        check(os.path.join(source, ITERATION), whole, mesh)
    first = os.path.join(fixture("llama_tp_pp"), "legacy", ITERATION)
    for rank in os.listdir(first):
        for name in ("model_optim_rng.pt", "distrib_optim.pt"):
            ours, theirs = load(source, ITERATION, rank, name), load(first, rank, name)
            if name == "distrib_optim.pt":
                assert equal(ours, theirs)
                continue
            for key in ("checkpoint_version", "iteration", "model", "optimizer", "opt_param_scheduler",
                        "num_floating_point_operations_so_far"):
                assert equal(ours[key], theirs[key]), key
            args, before = vars(ours["args"]), vars(theirs["args"])
            assert {k: args[k] for k in before} == before


def test_arguments_say_the_mesh(tmp_path):
    source = os.path.join(fixture("llama_tp_pp"), "legacy")
    out = to_megatron(source, str(tmp_path / "out"), "tp=1,pp=2,vp=2", "--set", "vocab=101")
    args = vars(load(out, ITERATION, "mp_rank_00_000", "model_optim_rng.pt")["args"])
    said = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2,
            "expert_model_parallel_size": 1, "padded_vocab_size": 112, "ckpt_format": "torch", "world_size": 8,
            "data_parallel_size": 4, "num_layers": 4, "use_distributed_optimizer": True}
    assert {k: args[k] for k in said} == said
    assert args["params_dtype"] is torch.bfloat16 and args["attention_backend"].name == "auto"


@pytest.mark.parametrize("tp", [1, 4])
def test_the_vocabulary_is_padded_for_the_target(tmp_path, tp):
    whole, said = truth("llama_tp_pp")
    mesh = Mesh(said["config"], tp=tp, pp=2)
    out = to_megatron(os.path.join(fixture("llama_tp_pp"), "legacy"), str(tmp_path / "out"), mesh.layout(), "--set",
                      f"vocab={said['config']['vocab']}")
    check(os.path.join(out, ITERATION), whole, mesh)


def test_uneven_stages(tmp_path):
    whole, said = truth("llama_tp_pp")
    mesh = Mesh(said["config"], tp=2, pp=2, stages=[1, 3], vocab=said["padded_vocab"])
    out = to_megatron(os.path.join(fixture("llama_tp_pp"), "legacy"), str(tmp_path / "out"), mesh.layout(), "--stages", "1,3")
    check(os.path.join(out, ITERATION), whole, mesh)
    args = vars(load(out, ITERATION, "mp_rank_00_001", "model_optim_rng.pt")["args"])
    assert args["decoder_first_pipeline_num_layers"] == 1 and "decoder_last_pipeline_num_layers" not in args


def test_tied_embeddings(tmp_path):
    whole, said = truth("gpt2_tied")
    source = os.path.join(fixture("gpt2_tied"), "legacy")
    for tp, pp in ((1, 2), (2, 1), (4, 2)):
        mesh = Mesh(said["config"], tp=tp, pp=pp, tied=True, vocab=said["padded_vocab"])
        out = to_megatron(source, str(tmp_path / f"{tp}{pp}"), mesh.layout())
        check(os.path.join(out, ITERATION), whole, mesh)


@pytest.mark.parametrize("mesh", [dict(ep=4), dict(ep=2, tp=2), dict(ep=2, tp=2, etp=1), dict(ep=1, pp=2), dict(ep=4, tp=2, etp=1)],
                         ids=str)
def test_experts(tmp_path, mesh):
    whole, said = truth("moe_ep")
    mesh = Mesh(said["config"], **mesh, vocab=said["padded_vocab"])
    out = to_megatron(os.path.join(fixture("moe_ep"), "legacy"), str(tmp_path / "out"), mesh.layout())
    check(os.path.join(out, ITERATION), whole, mesh)


def check_plain(folder, whole, mesh):
    """The states of an optimizer that is not distributed: two groups, numbers counted through them."""
    check(folder, whole, mesh, distributed=False)
    for tp, pp, ep, etp, *_ in mesh.files():
        where = os.path.join(folder, mesh.folder(tp, pp, ep))
        assert os.listdir(where) == ["model_optim_rng.pt"]
        state = load(where, "model_optim_rng.pt")
        groups = [[], []]
        for vp, chunk in enumerate(chunks(state)):
            for name, tensor in parameters(chunk).items():
                groups[tensor.dim() == 1].append((vp, name))
        saved, masters = state["optimizer"]["optimizer"], state["optimizer"]["fp32_from_fp16_params"]
        index = 0
        for group, options, kept in zip(groups, saved["param_groups"], masters):
            assert options["params"] == list(range(index, index + len(group))) and len(kept) == len(group)
            for (vp, name), master in zip(group, kept):
                found = saved["state"][index] | {"param": master}
                assert found["step"] == 120
                for kind in STATES:
                    same(found[kind], mesh.held(whole, kind, name, tp, pp, vp, ep, etp))
                index += 1
        assert len(saved["state"]) == index


@pytest.mark.parametrize("mesh", [dict(pp=2, vp=2), dict(tp=2, pp=2, vp=2), dict(pp=4), dict(tp=4)], ids=str)
def test_plain_optimizer(tmp_path, mesh):
    whole, said = truth("llama_vpp_plain_adam")
    mesh = Mesh(said["config"], **mesh, vocab=said["padded_vocab"])
    out = to_megatron(os.path.join(fixture("llama_vpp_plain_adam"), "legacy"), str(tmp_path / "out"), mesh.layout())
    check_plain(os.path.join(out, ITERATION), whole, mesh)


def plain_model(tmp_path, heads=6, groups=3, layers=6):
    """Weights under Megatron's names, as another program may have them; and the facts that shapes do not tell."""
    config = {"layers": layers, "hid": 12, "ffn": 24, "heads": heads, "groups": groups, "vocab": 101, "div": 16, "experts": 1}
    torch.manual_seed(7)
    rows = (heads + 2 * groups) * 2
    model = {"embedding.word_embeddings.weight": torch.randn(101, 12), "decoder.final_layernorm.weight": torch.randn(12),
             "output_layer.weight": torch.randn(101, 12)}
    for i in range(layers):
        at = f"decoder.layers.{i}."
        model |= {at + "input_layernorm.weight": torch.randn(12), at + "pre_mlp_layernorm.weight": torch.randn(12),
                  at + "self_attention.linear_qkv.weight": torch.randn(rows, 12),
                  at + "self_attention.linear_proj.weight": torch.randn(12, heads * 2),
                  at + "mlp.linear_fc1.weight": torch.randn(48, 12), at + "mlp.linear_fc2.weight": torch.randn(12, 24)}
    model = {k: v.bfloat16() for k, v in model.items()}
    path = str(tmp_path / "model.safetensors")
    save_file(model, path)
    facts = {"heads": heads, "groups": groups, "divisor": 16, "vocab": 101, "head_dim": 2}
    return path, {k: {"model": v} for k, v in model.items()}, config, [f for k, v in facts.items() for f in ("--set", f"{k}={v}")]


@pytest.mark.parametrize("mesh", [dict(tp=3), dict(tp=3, pp=2), dict(pp=3, vp=2), dict(tp=1)], ids=str)
def test_weights_alone(tmp_path, mesh):
    path, whole, config, facts = plain_model(tmp_path)
    mesh = Mesh(config, **mesh)
    out = to_megatron(path, str(tmp_path / "out"), mesh.layout(), *facts)
    with open(os.path.join(out, "latest_checkpointed_iteration.txt")) as file:
        assert file.read() == "release"
    check(os.path.join(out, "release"), whole, mesh, distributed=False)
    state = load(out, "release", sorted(os.listdir(os.path.join(out, "release")))[0], "model_optim_rng.pt")
    assert "optimizer" not in state and state["checkpoint_version"] == 3.0 and state["args"].num_layers == 6


def test_what_cannot_be_is_refused(tmp_path):
    source, out = os.path.join(fixture("llama_tp_pp"), "legacy"), str(tmp_path / "out")
    assert "vp" in refused(source, out, "--to", "megatron", "--layout", "tp=1,pp=1,vp=2", code=2)
    assert "etp" in refused(source, out, "--to", "megatron", "--layout", "tp=1,etp=2", code=2)
    assert "zero" in refused(source, out, "--to", "megatron", "--layout", "zero=1", code=2)
    assert "dp" in refused(source, out, "--to", "megatron", "--layout", "tp=1,ep=4,dp=2", code=2)


JOBS = {
    "tp4": ("llama_tp_pp", dict(tp=4, world=4)),
    "tp2 dp2": ("llama_tp_pp", dict(tp=2, world=4)),
    "pp2 vp2": ("llama_vpp_plain_adam", dict(pp=2, vp=2, world=2)),
    "uneven": ("llama_tp_pp", dict(pp=2, first=1, stages=[1, 3], world=2)),
    "tied pp2": ("gpt2_tied", dict(tp=1, pp=2, gpt2=True, tied=True, world=2)),
    "tied pp1": ("gpt2_tied", dict(tp=2, pp=1, gpt2=True, tied=True, world=2)),
    "ep2 tp2": ("moe_ep", dict(tp=2, ep=2, moe=True, world=4)),
}


@pytest.mark.parametrize("job", JOBS)
def test_megatron_loads_it(tmp_path, job):
    name, job = JOBS[job]
    whole, said = truth(name)
    config = said["config"] | {"vocab": said["padded_vocab"]}
    job = dict(tp=1, pp=1) | job
    mesh = Mesh(config, **{k: job[k] for k in ("tp", "pp", "vp", "ep", "stages", "tied") if k in job})
    flags = ["--stages", ",".join(map(str, job["stages"]))] if "stages" in job else []
    source = os.path.join(fixture(name), "legacy")
    if name == "llama_vpp_plain_adam":   # its own optimizer is not distributed: another source's is
        flags, source = flags, os.path.join(fixture("llama_tp_pp"), "legacy")
        whole, said = truth("llama_tp_pp")
        config = said["config"] | {"vocab": said["padded_vocab"]}
        mesh = Mesh(config, **{k: job[k] for k in ("tp", "pp", "vp")})
    out = to_megatron(source, str(tmp_path / "out"), mesh.layout(), *flags)
    for rank in megatron_run.load(job | {"config": config, "folder": out, "iteration": ITERATION}):
        assert rank["found"]
        for at, found in rank["found"].items():
            vp, parameter = at.split("/", 1)
            assert found["steps"] == {120.0}
            place = (rank["tp"], rank["pp"], int(vp), rank["ep"], rank["etp"])
            same(found["model"], mesh.held(whole, "model", parameter, *place))
            for kind in STATES:
                same(found[kind], mesh.held(whole, kind, parameter, *place).reshape(-1)[slice(*found["range"])])


def test_the_way_out_of_a_missing_state(tmp_path):
    source, out = os.path.join(fixture("llama_tp_pp"), "legacy"), str(tmp_path / "out")
    error = refused(source, out, "--to", "megatron", "--drop", "exp_avg_sq/*")
    assert "hint: --states fp32 writes the weights alone" in error, error
    convert(source, out, "--to", "megatron", "--states", "fp32")
