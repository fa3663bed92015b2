"""Megatron's legacy checkpoints: every fixture joined, and variants of them as other runs would have saved them."""
import argparse
import json
import os
import shutil

import pytest
import torch

import megatron_run
from common import DATA, Consolidated, convert, differences, expected_tensors, link_name, refused, uckpt

FIXTURES = {
    "megatron_gpt2_tied": "megatron/gpt2",
    "megatron_llama_buckets": "megatron/llama",
    "megatron_llama_tp_pp": "megatron/llama",
    "megatron_llama_uneven_stages": "megatron/llama",
    "megatron_llama_vpp_plain_adam": "megatron/llama",
    "megatron_moe_ep": "megatron/mixtral",
}
STEP = 120


def folder(fixture):
    return os.path.join(DATA, "torch", fixture)


def flags_of(fixture):
    """The padded rows are kept, as in the oracle, where the size of the vocabulary is said to be the padded one."""
    with open(os.path.join(folder(fixture), "expected.json"), encoding="utf-8") as file:
        return ["--spec", FIXTURES[fixture], "--set", f"vocab={json.load(file)['padded_vocab']}"]


def pairs_of(file, fixture, names=lambda name: name):
    """(key, dataset, tensor, tolerance) for all that the oracle has."""
    for key, tensor in expected_tensors(os.path.join(folder(fixture), "expected.safetensors")).items():
        kind, _, name = key.partition(".")
        state = None
        if kind == "optimizer":
            state, _, name = name.partition(".")
            state = "fp32" if state in ("fp32_param", "param") else state
            yield key, file.dataset(state, names(name)), tensor, {}
            continue
        found = file.dataset("param", names(name))
        if found is None:
            found = file.dataset("fp32", names(name))
            if found is not None:
                rounded = torch.from_numpy(found[()]).to(tensor.dtype)
                assert torch.equal(rounded, tensor), f"{key}: the rounded master is not the weight"
                continue
        yield key, found, tensor, {}


def check(out, fixture):
    with Consolidated(out) as file:
        assert not differences(pairs_of(file, fixture))
        steps = file.file.get("step")
        for name in steps or ():
            assert steps[name][()] == STEP


@pytest.fixture
def copy(tmp_path):
    """Copies the fixture's checkpoint; what it returns may be changed."""
    def make(fixture):
        target = tmp_path / "copy"
        shutil.copytree(os.path.join(folder(fixture), "legacy"), target)
        return str(target)
    return make


def edit(root, change, file="model_optim_rng.pt"):
    """Runs `change(content, rank folder)` on each rank's file; what it returns, if anything, is saved instead."""
    iteration = os.path.join(root, "iter_0000120")
    for rank in sorted(os.listdir(iteration)):
        path = os.path.join(iteration, rank, file)
        if os.path.exists(path):
            content = torch.load(path, weights_only=False)
            changed = change(content, rank)
            torch.save(content if changed is None else changed, path)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_fixture(fixture, out):
    convert(os.path.join(folder(fixture), "legacy"), out, *flags_of(fixture))
    check(out, fixture)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_iteration_folder(fixture, out):
    convert(os.path.join(folder(fixture), "legacy", "iter_0000120"), out, *flags_of(fixture))
    check(out, fixture)


def test_objects_and_random_states(out):
    convert(os.path.join(folder("megatron_llama_tp_pp"), "legacy"), out, *flags_of("megatron_llama_tp_pp"))
    with Consolidated(out) as file:
        view = file.objects()[link_name("mp_rank_01_001/model_optim_rng.pt")]
        assert view["iteration"] == STEP and view["opt_param_scheduler"]["max_lr"] == pytest.approx(3e-4)
        saved = torch.load(os.path.join(folder("megatron_llama_tp_pp"), "legacy", "iter_0000120", "mp_rank_01_001",
                                        "model_optim_rng.pt"), weights_only=False)
        state = file.dataset("other", "mp_rank_01_001/model_optim_rng.rng_state.0.torch_rng_state")
        assert torch.equal(torch.from_numpy(state[()]), saved["rng_state"][0]["torch_rng_state"])


def test_release(copy, out):
    root = copy("megatron_llama_tp_pp")
    os.rename(os.path.join(root, "iter_0000120"), os.path.join(root, "release"))
    with open(os.path.join(root, "latest_checkpointed_iteration.txt"), "w", encoding="utf-8") as file:
        file.write("release")
    convert(root, out, *flags_of("megatron_llama_tp_pp"))
    check(out, "megatron_llama_tp_pp")


def buckets_of(fixture):
    with open(os.path.join(folder(fixture), "expected.json"), encoding="utf-8") as file:
        return json.load(file)["grad_buffers"][0]["buffers"][0]["buckets"]


@pytest.mark.parametrize("padded", [True, False])
def test_an_array_for_each_bucket(copy, out, padded):
    """As before the buckets were joined: lists, with the padding at each bucket's end or without it."""
    root, buckets = copy("megatron_llama_buckets"), buckets_of("megatron_llama_buckets")

    def split(content, _):
        made = {}
        for dtype, states in content[0].items():
            lists = {}
            for key in ("param", "exp_avg", "exp_avg_sq"):
                parts = torch.split(states[key], [b["numel_unpadded"] for b in buckets])
                lists[key] = [torch.nn.functional.pad(p, (0, (b["numel"] - b["numel_unpadded"]) * padded), value=7.0)
                              for p, b in zip(parts, buckets)]
            made[dtype] = lists
        return {0: made, "per_bucket_numel": [{}]}
    edit(root, split, "distrib_optim.pt")
    convert(root, out, *flags_of("megatron_llama_buckets"))
    check(out, "megatron_llama_buckets")


def test_the_bucket_size_that_args_state(copy, out):
    root = copy("megatron_llama_buckets")

    def state(content, _):
        content["args"].ddp_bucket_size, content["args"].overlap_grad_reduce = 3000, True
    edit(root, state)
    convert(root, out, *flags_of("megatron_llama_buckets"))
    check(out, "megatron_llama_buckets")


def test_further_states_keep_their_names(copy, out):
    root = copy("megatron_llama_tp_pp")

    def add(content, _):
        for states in content[0].values():
            states["max_exp_avg_sq"] = states["exp_avg_sq"] * 2
    edit(root, add, "distrib_optim.pt")
    convert(root, out, *flags_of("megatron_llama_tp_pp"))
    check(out, "megatron_llama_tp_pp")
    with Consolidated(out) as file:
        name = "decoder.layers.3.mlp.linear_fc1.weight"
        assert (file.dataset("max_exp_avg_sq", name)[()] == file.dataset("exp_avg_sq", name)[()] * 2).all()


def test_fp32_only(copy, out):
    """A run in fp32: the optimizer's state_dict without a wrapper, its weights are the masters."""
    root, fixture = copy("megatron_llama_vpp_plain_adam"), "megatron_llama_vpp_plain_adam"

    def widen(content, _):
        masters = content["optimizer"]["fp32_from_fp16_params"]
        content["optimizer"] = content["optimizer"]["optimizer"]
        vectors, matrices = iter(masters[1]), iter(masters[0])
        for chunk in ("model0", "model1"):
            for name, tensor in content[chunk].items():
                if tensor is not None:
                    content[chunk][name] = next(vectors if tensor.ndim == 1 else matrices)
        content["args"].bf16, content["args"].params_dtype = False, torch.float32
    edit(root, widen)
    convert(root, out, *flags_of(fixture))
    with Consolidated(out) as file:
        assert not differences(p for p in pairs_of(file, fixture) if p[0].startswith("optimizer."))


def test_buffers_and_extra_states(copy, out):
    """A router's bias is saved with the model and has no gradient; what Transformer Engine keeps is opaque."""
    root = copy("megatron_moe_ep")
    extra = torch.arange(9, dtype=torch.uint8)

    def add(content, _):
        made = {}
        for name, tensor in content["model"].items():
            made[name] = tensor
            if name.endswith("mlp.router.weight"):
                made[name.replace("weight", "expert_bias")] = torch.arange(4, dtype=torch.float32)
        made["decoder.layers.0.self_attention.linear_qkv._extra_state"] = extra
        content["model"] = made
    edit(root, add)
    spec = os.path.join(os.path.dirname(root), "spec.ucl")
    with open(spec, "w", encoding="utf-8") as file:
        file.write('ucl 1\nimport "megatron/mixtral"\nlayout with_bias over pp, vp, tp, ep, etp {\n'
                   '    "decoder.layers.{i}.mlp.router.expert_bias" replicate\n    use megatron_mixtral\n}\n')
    flags = flags_of("megatron_moe_ep")
    convert(root, out, "--spec", spec, "--naming", "with_bias", *flags[2:])
    check(out, "megatron_moe_ep")
    with Consolidated(out) as file:
        assert list(file.dataset("buffer", "decoder.layers.1.mlp.router.expert_bias")[()]) == [0, 1, 2, 3]
        name = "mp_rank_00_000/model_optim_rng.model.decoder.layers.0.self_attention.linear_qkv._extra_state"
        assert list(file.dataset("other", name)[()]) == list(extra)


def test_different_dense_weights_of_expert_ranks(copy, out):
    """Both files have the router's weight: the copies are compared."""
    root = copy("megatron_moe_ep")

    def change(content, rank):
        if rank.endswith("_001"):
            content["model"]["decoder.layers.0.mlp.router.weight"][0, 0] += 1
    edit(root, change)
    message = refused(root, out, *flags_of("megatron_moe_ep"))
    assert "decoder.layers.0.mlp.router.weight" in message


def rank_path(root, rank, file=""):
    return os.path.join(root, "iter_0000120", rank, file)


def test_missing_rank(copy, out):
    root = copy("megatron_llama_tp_pp")
    shutil.rmtree(rank_path(root, "mp_rank_01_001"))
    message = refused(root, out, *flags_of("megatron_llama_tp_pp"))
    assert "mp_rank_01_001 is missing (mp_rank_00_000, mp_rank_01_000, mp_rank_00_001 are here)" in message
    shown = uckpt("inspect", root)
    assert shown.code == 0 and "mp_rank_01_001 is missing" in shown.text + shown.error


def test_missing_optimizer_file(copy, out):
    root = copy("megatron_moe_ep")
    os.remove(rank_path(root, "mp_rank_00_001", "distrib_optim.pt"))
    assert "mp_rank_00_001/distrib_optim.pt is missing" in refused(root, out, *flags_of("megatron_moe_ep"))


def test_foreign_rank(copy, out):
    root = copy("megatron_llama_tp_pp")
    shutil.copytree(rank_path(root, "mp_rank_01_001"), rank_path(root, "mp_rank_02_001"))
    assert "mp_rank_02_001 is not of the ranks" in refused(root, out, *flags_of("megatron_llama_tp_pp"))


def test_states_without_names(copy, out):
    """Frozen parameters have no states, and nothing says which they are: the weights are had without."""
    root = copy("megatron_llama_tp_pp")

    def shrink(content, rank):
        for states in content[0].values() if rank == "mp_rank_00_001" else ():
            for state in ("param", "exp_avg", "exp_avg_sq"):
                states[state] = states[state][:-640]
            states["numel_unpadded"] -= 640
    edit(root, shrink, "distrib_optim.pt")
    error = refused(root, out, *flags_of("megatron_llama_tp_pp"))
    assert "some are frozen" in error and "--states param writes the weights alone" in error, error
    convert(root, out, *flags_of("megatron_llama_tp_pp"), "--states", "param")
    truth = expected_tensors(os.path.join(DATA, "torch", "megatron_llama_tp_pp", "expected.safetensors"))
    with Consolidated(out) as file:
        assert not differences([(k, file.dataset("param", k[6:]), t, {}) for k, t in truth.items()
                                if k.startswith("model.")])


@pytest.mark.parametrize("what, change", [
    ("args.hidden_size: expected 16, found 17", lambda c: setattr(c["args"], "hidden_size", 17)),
    ("iteration: expected 120, found 121", lambda c: c.__setitem__("iteration", 121)),
])
def test_other_save(copy, out, what, change):
    root = copy("megatron_llama_tp_pp")
    edit(root, lambda content, rank: change(content) if rank == "mp_rank_01_001" else None)
    assert what in refused(root, out, *flags_of("megatron_llama_tp_pp"))


@pytest.mark.parametrize("change", [
    lambda s: s.__setitem__("param", s["param"][:-1]),
    lambda s: [s.__setitem__(k, s[k][:-64]) for k in ("param", "exp_avg", "exp_avg_sq")] +
              [s.__setitem__("numel_unpadded", s["numel_unpadded"] - 64)],
    lambda s: s.__setitem__("numel_unpadded", 2**62),
    lambda s: s.__setitem__("exp_avg", "text"),
    lambda s: s.__setitem__("exp_avg", s["exp_avg"].reshape(1, -1)),
])
def test_wrong_arrays(copy, out, change):
    root = copy("megatron_llama_tp_pp")

    def damage(content, rank):
        if rank == "mp_rank_00_001":
            for states in content[0].values():
                change(states)
    edit(root, damage, "distrib_optim.pt")
    assert "distrib_optim.pt" in refused(root, out, *flags_of("megatron_llama_tp_pp"))


@pytest.mark.parametrize("name, value", [
    ("tensor_model_parallel_size", 0), ("pipeline_model_parallel_size", -1), ("tensor_model_parallel_size", 2**62),
    ("expert_model_parallel_size", 2**20), ("world_size", 3), ("virtual_pipeline_model_parallel_size", 2)])
def test_hostile_arguments(copy, out, name, value):
    root = copy("megatron_llama_tp_pp")
    edit(root, lambda content, _: setattr(content["args"], name, value))
    refused(root, out, *flags_of("megatron_llama_tp_pp"))


@pytest.mark.parametrize("change", [
    lambda c: c.pop("model"),
    lambda c: c.__setitem__("model", 3),
    lambda c: c.__setitem__("model", {"a": c["model"], "b": {"a": 1}}),
    lambda c: c.__setitem__("optimizer", 3),
    lambda c: c.__setitem__("optimizer", [1, 2]),
    lambda c: c.__setitem__("args", argparse.Namespace()),
    lambda c: c.__setitem__("optimizer", [c["optimizer"]] * 5),
])
def test_other_content(copy, out, change):
    root = copy("megatron_llama_tp_pp")
    edit(root, lambda content, _: change(content) and None)
    result = uckpt("convert", "-q", root, out, *flags_of("megatron_llama_tp_pp"))
    assert result.code in (0, 1, 2)


def test_old_rows_of_qkv(copy, out):
    root = copy("megatron_llama_uneven_stages")

    def make_old(content, _):
        content["checkpoint_version"] = 1.0
        content["model"] = {"language_model": {"encoder": {
            name.replace("decoder.", "").replace("linear_qkv", "query_key_value"): tensor
            for name, tensor in content["model"].items()}}}
    edit(root, make_old)
    assert "checkpoint_version 1" in refused(root, out, *flags_of("megatron_llama_uneven_stages"))
    listed = uckpt("ls", root)
    assert "language_model.encoder.layers.0.self_attention.query_key_value.weight" in listed.text


def local_tensors(tensors, tp, tp_rank, etp, etp_rank, experts):
    """What a rank of the small Mixtral holds, in the order of the tensors: `experts` are its global numbers."""
    out = {}
    for name, t in tensors.items():
        n, r = (etp, etp_rank) if ".experts." in name else (tp, tp_rank)
        if ".local_experts." in name:
            head, _, rest = name.partition(".local_experts.")
            number, _, rest = rest.partition(".")
            if int(number) not in experts:
                continue
            name = f"{head}.local_experts.{experts.index(int(number))}.{rest}"
        if name.endswith("linear_fc1.weight"):
            t = torch.cat([half.chunk(n)[r] for half in t.chunk(2)])
        elif name.endswith(("linear_fc2.weight", "linear_proj.weight")):
            t = t.chunk(n, 1)[r]
        elif name.endswith(("linear_qkv.weight", "word_embeddings.weight", "output_layer.weight")):
            t = t.chunk(n)[r]
        out[name] = t.contiguous()
    return out


def flat_states(local, states):
    """One buffer with one bucket: parameters from the last registered, each from a multiple of 64 on."""
    places, end = {}, 0
    for name in reversed(list(local)):
        start = -(-end // 64) * 64
        places[name], end = start, start + local[name].numel()
    made = {"numel_unpadded": end}
    for key, tensors in states.items():
        made[key] = torch.full((end,), float("nan"))
        for name, start in places.items():
            made[key][start:start + local[name].numel()] = tensors[name].flatten()
    return {"buckets_coalesced": True, 0: {(torch.bfloat16, torch.float32): made}}


@pytest.mark.parametrize("tp, etp, ep", [(2, 1, 2), (2, 1, 4), (2, 2, 2), (1, 1, 4)])
def test_experts_that_form_no_grid(tmp_path, out, tp, etp, ep):
    """The small Mixtral as a run of other degrees saves it: of rank r, tp counts r % tp, etp r % etp, ep r // etp."""
    fixture = "megatron_moe_ep"
    oracle = expected_tensors(os.path.join(folder(fixture), "expected.safetensors"))
    source = torch.load(os.path.join(folder(fixture), "legacy", "iter_0000120", "mp_rank_00_000",
                                     "model_optim_rng.pt"), weights_only=False)
    order = []  # of registration, with all experts
    for name, t in source["model"].items():
        if t is not None:
            order.append(name)
    order = sorted((k[len("model."):] for k in oracle if k.startswith("model.")),
                   key=lambda name: order.index(name.replace(".2.linear", ".0.linear").replace(".3.linear", ".1.linear")))
    whole = {"model": {name: oracle[f"model.{name}"] for name in order}}
    keys = {"param": "fp32_param", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
    for key, oracle_key in keys.items():
        whole[key] = {name: oracle[f"optimizer.{oracle_key}.{name}"] for name in order}
    args = source["args"]
    args.tensor_model_parallel_size, args.expert_tensor_parallel_size, args.expert_model_parallel_size = tp, etp, ep
    args.world_size, args.make_vocab_size_divisible_by = etp * ep, 16 // tp
    for r in range(etp * ep):
        experts = list(range(4))[r // etp * 4 // ep:(r // etp + 1) * 4 // ep]
        cut = {kind: local_tensors(tensors, tp, r % tp, etp, r % etp, experts) for kind, tensors in whole.items()}
        dense = {n: t for n, t in cut["model"].items() if ".experts." not in n}
        spread = {n: t for n, t in cut["model"].items() if ".experts." in n}
        states = {kind: cut[kind] for kind in keys}
        path = tmp_path / "in" / "iter_0000120" / f"mp_rank_{r % tp:02d}_{r // etp:03d}"
        os.makedirs(path)
        torch.save({**source, "model": cut["model"]}, path / "model_optim_rng.pt")
        torch.save([flat_states(dense, states) if r < tp else None, flat_states(spread, states)],
                   path / "distrib_optim.pt")
    convert(str(tmp_path / "in"), out, *flags_of(fixture))
    check(out, fixture)


JOBS = {
    "buckets": ("megatron_llama_tp_pp", dict(tp=2, world=4, bucket=1500)),
    "buckets that args state": ("megatron_llama_tp_pp", dict(tp=2, world=2, bucket=1500, arguments={
        "overlap_grad_reduce": True, "ddp_bucket_size": 1500})),
    "tied in buckets": ("megatron_gpt2_tied", dict(pp=2, world=4, bucket=700, gpt2=True)),
    "virtual stages in buckets": ("megatron_llama_tp_pp", dict(pp=2, vp=2, world=2, bucket=1500)),
    "experts": ("megatron_moe_ep", dict(tp=2, ep=2, moe=True, world=8)),
    "experts in buckets": ("megatron_moe_ep", dict(ep=4, moe=True, world=4, bucket=1000)),
    "whole experts": ("megatron_moe_ep", dict(tp=2, etp=1, ep=2, moe=True, world=4)),
    "more expert ranks": ("megatron_moe_ep", dict(tp=2, etp=1, ep=4, moe=True, world=4, bucket=1000)),
}


@pytest.mark.parametrize("job", JOBS)
def test_megatron_saves_it(tmp_path, out, job):
    """Megatron-core loads a fixture on another mesh, which its own tests hold against numpy, and saves it anew."""
    fixture, job = JOBS[job]
    job = dict(tp=1, pp=1) | job
    with open(os.path.join(folder(fixture), "expected.json"), encoding="utf-8") as file:
        said = json.load(file)
    config = said["config"] | {"vocab": said["padded_vocab"]}
    config["layers"] = said["parallel"].get("layers", config["layers"])
    mesh = ",".join(f"{axis}={job[axis]}" for axis in ("tp", "pp", "vp", "ep", "etp") if axis in job)
    given = convert(os.path.join(folder(fixture), "legacy"), str(tmp_path / "given"), "--to", "megatron",
                    "--layout", mesh, *flags_of(fixture))
    again = str(tmp_path / "again")
    assert megatron_run.load(job | {"config": config, "folder": given, "iteration": "iter_0000120", "again": again})
    convert(again, out, *flags_of(fixture))
    check(out, fixture)
