"""Megatron-core's distributed checkpoints: the fixtures, what Megatron-core itself saves here in all kinds, and that it
loads what `--to megatron-core` makes, in other meshes."""
import functools
import glob
import io
import json
import os
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

import megatron_run
from common import DATA, Consolidated, convert, differences, expected_tensors, refused, uckpt
from megatron_run import number, numbers
from test_megatron_legacy_writer import ITERATION, Mesh, fixture, same, truth

FIXTURES = sorted(os.path.relpath(p, os.path.join(DATA, "torch"))
                  for p in glob.glob(os.path.join(DATA, "torch", "megatron_*", "torch_dist_*")))
STATE_OF = {"model": "param", "fp32_param": "fp32", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def oracle(name):
    return expected_tensors(os.path.join(DATA, "torch", name, "expected.safetensors"))


def check(out, tensors, step=120):
    """Every tensor of the oracle: masters and moments bit for bit, module weights as what the masters round to."""
    with Consolidated(out) as file:
        pairs = []
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, state, name = key.split(".", 2)
                pairs.append((key, file.dataset(STATE_OF[state], name), value, {}))
                assert float(file.dataset("step", name)[()]) == step, name
            elif "optimizer.fp32_param." + key[6:] not in tensors:
                pairs.append((key, file.dataset("param", key[6:]), value, {}))
            else:  # kept apart only where it is not its master rounded
                assert file.dataset("param", key[6:]) is None, key
        assert pairs and not differences(pairs)
        return set(file.paths())


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(name, out):
    convert(os.path.join(DATA, "torch", name), out)
    check(out, oracle(name.split("/")[0]))


@pytest.mark.parametrize("name", FIXTURES)
def test_inspect_tells_the_run(name):
    text = uckpt("inspect", os.path.join(DATA, "torch", name)).text
    assert "Megatron-core" in text and "optimizer sharding" in text or "plain" in name, text


def test_a_spec_of_its_names_but_of_other_shapes(tmp_path):
    """Whole tensors are read without it; where it is needed, the way out is said."""
    folder = str(tmp_path / "ckpt")
    shutil.copytree(os.path.join(DATA, "torch", "megatron_llama_tp_pp", "torch_dist_fully_reshardable"), folder)
    common, = glob.glob(os.path.join(folder, "*", "common.pt"))
    os.chmod(common, 0o644)
    state = torch.load(common, weights_only=False)
    state["args"].num_query_groups *= 2  # as if its QKV had other parts
    torch.save(state, common)
    out = str(tmp_path / "out.h5")
    result = uckpt("convert", folder, out)
    assert result.code == 0, result.error
    assert "megatron/llama" in result.error and "taken as they lie" in result.error
    plain = convert(os.path.dirname(common), str(tmp_path / "plain.h5"), "--from", "dcp")
    with Consolidated(out) as file, Consolidated(plain) as other:
        name = "embedding.word_embeddings.weight"  # as many rows as the files have
        assert file.dataset("fp32", name).shape == other.dataset("param", name).shape
    for verb in ("verify", "stats", "ls"):
        assert uckpt(verb, folder).code == 0
    text = refused(folder, str(tmp_path / "hf"), "--to", "safetensors", "--as", "hf")
    assert "megatron/llama:" in text and "--spec gives rules that fit" in text


def load(folder, name, mesh, **more):
    """What every rank of Megatron-core has after it loaded `folder`, checked against the oracle."""
    whole, said = truth(name)
    config = dict(said["config"], vocab=mesh.config["vocab"])
    job = {"core": True, "config": config, "folder": folder, "iteration": ITERATION, "tp": mesh.tp, "pp": mesh.pp,
           "vp": mesh.vp, "ep": mesh.ep, "etp": mesh.etp, "world": mesh.tp * mesh.pp * more.get("dp", mesh.ep),
           "gpt2": said["parallel"].get("gpt2", False), "moe": name == "moe_ep"} | more
    if len(set(mesh.stages)) > 1:
        job["first"] = mesh.stages[0]
    for rank in megatron_run.load(job):
        assert rank["found"]
        for where, held in rank["found"].items():
            vp, local = where.split("/", 1)
            expected = {s: mesh.held(whole, s, local, rank["tp"], rank["pp"], int(vp), rank["ep"], rank["etp"])
                        for s in ("model",) + megatron_run.STATES}
            same(held["model"], expected["model"])
            begin, end = held["range"]
            for state in megatron_run.STATES:
                same(held[state], expected[state].reshape(-1)[begin:end])
            assert held["steps"] == {120.0}


def mesh_of(name, **sizes):
    _, said = truth(name)
    return Mesh(said["config"], vocab=said["padded_vocab"], tied=said["parallel"].get("gpt2", False), **sizes)


JOBS = [("llama_tp_pp", dict(tp=2, pp=2)), ("llama_tp_pp", dict(tp=1, pp=4)), ("llama_tp_pp", dict(tp=4)),
        ("llama_vpp_plain_adam", dict(pp=2, vp=2)), ("gpt2_tied", dict(tp=2)), ("gpt2_tied", dict(pp=2)),
        ("moe_ep", dict(ep=2)), ("moe_ep", dict(ep=4)), ("moe_ep", dict(tp=2, ep=2))]


def source_of(name, kind="torch_dist"):
    return sorted(glob.glob(os.path.join(fixture(name), kind + "*")))[-1]


@pytest.mark.parametrize("name, sizes", [j for j in JOBS if "plain" not in j[0]], ids=str)
def test_megatron_loads_it(name, sizes, tmp_path):
    mesh = mesh_of(name, **sizes)
    made = convert(source_of(name), str(tmp_path / "made"), "--to", "megatron-core", "--layout", mesh.layout())
    load(made, name, mesh)


SAVES = [("llama_tp_pp", dict(tp=2, pp=2), dict(sharding="dp_reshardable")),
         ("llama_tp_pp", dict(tp=2), dict(sharding="dp_reshardable", parallel=True)),
         ("llama_tp_pp", dict(pp=2, vp=2), dict(sharding="dp_reshardable")),
         ("llama_tp_pp", dict(tp=2), dict(sharding="fully_reshardable", singleton=True)),
         ("gpt2_tied", dict(pp=2), dict(sharding="dp_reshardable")),
         ("gpt2_tied", dict(tp=2), dict(sharding="dp_reshardable")),
         ("moe_ep", dict(ep=2), dict(sharding="dp_reshardable")),
         ("moe_ep", dict(tp=2, ep=2), dict(sharding="dp_reshardable")),
         ("moe_ep", dict(ep=2), dict(sharding="fully_reshardable", singleton=True)),
         ("moe_ep", dict(ep=1), dict(sharding="dp_reshardable")),
         ("moe_ep", dict(pp=2), dict(sharding="dp_zero_gather_scatter")),
         ("llama_vpp_plain_adam", dict(pp=2, vp=2), dict(sharding=None)),
         ("llama_vpp_plain_adam", dict(tp=2), dict(sharding=None))]


@pytest.mark.parametrize("name, sizes, save", SAVES, ids=str)
def test_what_megatron_saves_is_read(name, sizes, save, tmp_path, out):
    """Every sharding of the optimizer that it can write here, more ranks than data parallel ones."""
    mesh = mesh_of(name, **sizes)
    made = convert(source_of(name), str(tmp_path / "made"), "--to", "megatron-core", "--layout", mesh.layout())
    saved = str(tmp_path / "saved")
    load(made, name, mesh, dp=max(2, mesh.ep), save=save | {"folder": saved}, distributed=save["sharding"] is not None)
    # The rows of the oracle; a wider mesh has padded them further.
    convert(saved, out, "--set", f"vocab={truth(name)[1]['padded_vocab']}")
    check(out, oracle("megatron_" + name))


CONFIG = dict(layers=4, hid=16, ffn=24, heads=4, groups=2, vocab=96, div=16, seq=32, experts=4)


def make(folder, ep=1, sharding="dp_reshardable", **more):
    """What each rank has of a run with random values that Megatron-core saved in `folder`."""
    arguments = dict(num_layers=4, hidden_size=16, num_attention_heads=4, num_query_groups=2, ffn_hidden_size=24,
                     padded_vocab_size=96, make_vocab_size_divisible_by=16, tensor_model_parallel_size=1, pipeline_model_parallel_size=1,
                     expert_model_parallel_size=ep, world_size=ep, swiglu=more.get("gated", True), iteration=120, ckpt_format="torch_dist",
                     untie_embeddings_and_output_weights=True, num_experts=4 if more.get("moe") else None, use_distributed_optimizer=more.get("distributed", True),
                     moe_layer_freq=more.get("model", {}).get("moe_layer_freq", 1), use_precision_aware_optimizer=more.get("remainders", False))
    return megatron_run.load({"make": True, "config": CONFIG, "tp": 1, "pp": 1, "ep": ep, "world": ep, "arguments":
                              arguments, "save": {"folder": folder, "sharding": sharding}} | more)


def check_made(out, ranks, states=megatron_run.STATES):
    """Each state that lies whole on a rank."""
    with Consolidated(out) as file:
        pairs = []
        for ep, rank in enumerate(ranks):
            for name, held in rank.items():
                at = number(name, [n if i == 0 else n + ep * 4 // len(ranks) for i, n in enumerate(numbers(name))])
                if "buffer" in held:
                    pairs.append((at, file.dataset("buffer", at), held["buffer"], {}))
                for state in states if "param" in held else ():
                    found = file.dataset("fp32" if state == "param" else state, at)
                    pairs.append((at + "/" + state, found, held[state].reshape(held["model"].shape), {}))
        assert pairs and not differences(pairs)
        return set(file.paths())


BALANCED = dict(moe=True, model=dict(moe_router_enable_expert_bias=True, moe_router_score_function="sigmoid"))
GATED = dict(moe=True, model=dict(moe_shared_expert_intermediate_size=20, moe_shared_expert_gate=True))


@pytest.mark.parametrize("sharding", ["dp_zero_gather_scatter", "dp_reshardable"])
def test_a_gate_of_shared_experts(sharding, tmp_path, out):
    """A module's own parameters are registered before those of its children, and saved after them."""
    ranks = make(str(tmp_path / "made"), sharding=sharding, **GATED)
    convert(str(tmp_path / "made"), out)
    paths = check_made(out, ranks)
    assert not [p for p in paths if p.startswith("param/")]   # each is what its master rounds to


MIXED = dict(moe=True, gated=False, model=dict(moe_layer_freq=[0, 1, 1, 1], moe_shared_expert_intermediate_size=20))


@pytest.mark.parametrize("kind", [MIXED, dict(moe=True, biased=True)], ids=["dense layers, no gates", "biases"])
def test_experts_of_other_kinds(kind, tmp_path, out):
    """Dense layers among those of experts, experts without gates, with biases: cut by numpy, and back."""
    ranks = make(str(tmp_path / "made"), **kind)
    made = convert(str(tmp_path / "made"), str(tmp_path / "to"), "--to", "megatron", "--layout", "tp=2,ep=2,etp=1")
    config, whole, seen = CONFIG | {"swiglu": kind.get("gated", True)}, ranks[0], set()
    for rank in range(2):
        state = torch.load(os.path.join(made, ITERATION, f"mp_rank_0{rank}_00{rank}", "model_optim_rng.pt"), weights_only=False)
        for name, tensor in state["model"].items():
            at = number(name, [n if i == 0 else n + 2 * rank for i, n in enumerate(numbers(name))])
            full = whole[at]["model"].float().numpy()
            same(tensor.float(), megatron_run.cut(name, full, config, 2, rank, 1, 0))
            seen.add(at)
    assert seen == set(whole)
    convert(made, out)
    check_made(out, ranks)


@pytest.mark.parametrize("sharding", ["dp_zero_gather_scatter", "dp_reshardable"])
def test_a_buffer_among_parameters(sharding, tmp_path, out):
    """The bias that balances experts is no parameter: the optimizer's buckets lack it."""
    ranks = make(str(tmp_path / "made"), sharding=sharding, **BALANCED)
    made = convert(str(tmp_path / "made"), str(tmp_path / "to"), "--to", "megatron-core")
    convert(made, out)
    assert "buffer/decoder.layers.3.mlp.router.expert_bias" in check_made(out, ranks)


@pytest.mark.parametrize("sharding", ["dp_zero_gather_scatter", "dp_reshardable"])
def test_an_order_that_is_not_known(sharding, tmp_path, out):
    """Buckets have no names: where a module that no Megatron has lies among them shows in the weights."""
    saved = str(tmp_path / "made")
    ranks = make(saved, sharding=sharding, stranger="ab")
    done = uckpt("convert", saved, out)
    assert done.code == 0 and "where decoder.layers.0.stranger.a.weight is registered" in done.error, done.error
    check_made(out, ranks)
    make(str(tmp_path / "other"), sharding=sharding, stranger="ba")
    convert(str(tmp_path / "other"), str(tmp_path / "weights.h5"), "--states", "param")
    error = refused(str(tmp_path / "other"), str(tmp_path / "other.h5"))
    assert "in no order" in error and "decoder.layers.0.stranger.b.weight" in error, error


@pytest.mark.parametrize("kind, file", [("megatron-core", "common.pt"), ("megatron", "mp_rank_00/model_optim_rng.pt")])
@pytest.mark.parametrize("distributed", [True, False])
def test_tensors_in_common(distributed, kind, file, tmp_path):
    """The scale of the loss is one: Megatron cannot go on without it."""
    saved = str(tmp_path / "made")
    make(saved, sharding="fully_reshardable", dtype="float16", distributed=distributed)
    done = uckpt("convert", saved, str(tmp_path / "to"), "--to", kind)
    assert done.code == 0 and "left out" not in done.error, done.error
    optimizer = torch.load(str(tmp_path / "to" / ITERATION / file), weights_only=False)["optimizer"]
    assert torch.equal(optimizer["grad_scaler"]["scale"], torch.tensor([65536.0]))


@pytest.mark.parametrize("ep", [1, 2])
def test_experts_and_a_plain_optimizer(ep, tmp_path, out):
    """Each rank's file of a legacy checkpoint has all states of its parameters, those that experts share too."""
    ranks = make(str(tmp_path / "made"), ep=2, distributed=False, moe=True)
    made = convert(str(tmp_path / "made"), str(tmp_path / "to"), "--to", "megatron", "--layout", f"ep={ep}")
    folders = sorted(os.listdir(os.path.join(made, ITERATION)))
    assert len(folders) == ep
    for folder in folders:
        state = torch.load(os.path.join(made, ITERATION, folder, "model_optim_rng.pt"), weights_only=False)
        names = [n for n in state["model"] if not n.endswith("_extra_state")]
        kept = sum(len(o["optimizer"]["state"]) for o in state["optimizer"]) if ep > 1 else len(
            state["optimizer"]["optimizer"]["state"])
        assert kept == len(names)
    convert(made, out)
    check_made(out, ranks)


def test_random_states_of_each_expert_rank(tmp_path):
    """Newer versions keep, and ask for, those of each data parallel rank; older ones for those of rank 0."""
    saved = str(tmp_path / "saved")
    make(saved, ep=2, moe=True, rng="each", sharding="fully_reshardable")
    file = convert(saved, str(tmp_path / "x.h5"))
    for source, dp in (saved, 2), (saved, 4), (file, 2):
        to = os.path.join(convert(source, str(tmp_path / f"{os.path.basename(source)}-{dp}"), "--to", "megatron-core", "--layout", f"dp={dp}"),
                          ITERATION)
        expected = {f"rng_state/shard_0.0.{d}_1.1.{dp}": min(d, 1) for d in range(dp)} | {"rng_state/shard_0.0_1.1": 0}
        state = {key: io.BytesIO() for key in expected}
        dcp.load(state, checkpoint_id=to, no_dist=True)
        assert {key: value[0][0]["rank"] for key, value in state.items()} == expected
    legacy = convert(saved, str(tmp_path / "legacy"), "--to", "megatron")
    for rank in range(2):
        state = torch.load(os.path.join(legacy, ITERATION, f"mp_rank_00_00{rank}", "model_optim_rng.pt"), weights_only=False)
        assert state["rng_state"][0]["rank"] == rank


@pytest.mark.parametrize("sharding", ["dp_zero_gather_scatter", "dp_reshardable"])
def test_layers_that_predict_further_tokens(sharding, tmp_path, out):
    """They are on the last stage, and a copy of the embedding with them."""
    further = dict(model=dict(mtp_num_layers=1), rng=False)
    ranks = make(str(tmp_path / ITERATION), sharding="fully_reshardable", **further)
    saved = str(tmp_path / "saved")
    megatron_run.load({"core": True, "config": CONFIG, "folder": str(tmp_path), "iteration": ITERATION, "tp": 1, "pp": 2, "world": 2,
                       "arguments": dict(pipeline_model_parallel_size=2, world_size=2),
                       "save": {"folder": saved, "sharding": sharding}} | further)
    convert(saved, out)
    check_made(out, ranks)


@pytest.mark.parametrize("sharding", ["dp_zero_gather_scatter", "dp_reshardable"])
def test_frozen_parameters(sharding, tmp_path, out):
    """Nothing says which they are: the weights are had without the states."""
    saved = str(tmp_path / "made")
    ranks = make(saved, sharding=sharding, frozen=["word_embeddings"])
    error = refused(saved, out)
    assert "frozen" in error and "--states param writes the weights alone" in error, error
    convert(saved, out, "--states", "param")
    with Consolidated(out) as file:
        assert not differences([(name, file.dataset("param", name), held["model"], {})
                                for name, held in ranks[0].items()])


@pytest.mark.parametrize("sharding", ["fully_reshardable", "dp_reshardable"])
def test_masters_that_are_remainders(sharding, tmp_path, out):
    """A precision-aware optimizer saves integers for masters: they are no weights."""
    saved, legacy = str(tmp_path / "made"), str(tmp_path / "legacy")
    ranks = make(saved, sharding=sharding, remainders=True, again=legacy, iteration=ITERATION)
    for source in saved, legacy:
        assert "store_param_remainders" in refused(source, out)
        file = convert(source, str(tmp_path / (os.path.basename(source) + ".h5")), "--drop", "optimizer.masters")
        check_made(file, ranks, ("exp_avg", "exp_avg_sq"))
        with Consolidated(file) as found:
            assert not differences([(name, found.dataset("param", name), held["model"], {}) for name, held in ranks[0].items()])


def test_there_and_back(tmp_path, out):
    at = source_of("llama_tp_pp")
    for n, layout in enumerate(("tp=1,pp=4", "tp=4,pp=1", "tp=2,pp=2")):
        at = convert(at, str(tmp_path / f"{n}"), "--to", "megatron-core", "--layout", layout)
        args = torch.load(os.path.join(at, ITERATION, "common.pt"), weights_only=False)["args"]
        sizes = dict(p.split("=") for p in layout.split(","))
        assert args.tensor_model_parallel_size == int(sizes["tp"]) and args.ckpt_format == "torch_dist"
        assert args.pipeline_model_parallel_size == int(sizes["pp"])
    convert(at, out)
    check(out, oracle("megatron_llama_tp_pp"))


@pytest.mark.parametrize("name", ["llama_tp_pp", "gpt2_tied", "moe_ep", "llama_vpp_plain_adam", "llama_uneven_stages"])
def test_legacy_to_core(name, tmp_path, out):
    made = convert(os.path.join(fixture(name), "legacy"), str(tmp_path / "made"), "--to", "megatron-core")
    convert(made, out)
    check(out, oracle("megatron_" + name))


@pytest.mark.parametrize("name", ["llama_tp_pp", "moe_ep"])
def test_core_to_dcp(name, tmp_path, out):
    made = convert(source_of(name), str(tmp_path / "made"), "--to", "dcp")
    convert(made, out)
    with Consolidated(out) as file:
        pairs = [(k, file.dataset("exp_avg", k[18:]), v, {}) for k, v in oracle("megatron_" + name).items()
                 if k.startswith("optimizer.exp_avg.")]
        assert pairs and not differences(pairs)


def test_zarr_is_refused_by_name(tmp_path):
    folder = tmp_path / "ckpt" / ITERATION
    folder.mkdir(parents=True)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("120")
    (folder / "metadata.json").write_text('{"sharded_backend": "zarr", "sharded_backend_version": 1}')
    assert "zarr" in refused(str(folder.parent), str(tmp_path / "out.h5"))


def test_flattened_states_of_old_versions(tmp_path, out):
    """`fully_sharded_model_space`: a tensor cut into blocks, each flattened, its pieces anew cut; by the notes, as no
    version here writes it."""
    folder = tmp_path / ITERATION
    weight = torch.randn(3, 8, 6).bfloat16()
    key, name = "decoder.layers.mlp.linear_fc2.weight", "decoder.layers.{}.mlp.linear_fc2.weight"
    master, moment = weight.float(), torch.randn(3, 8, 6)
    # Blocks [1, 4, 3]: two along each of the last dims.
    flat = lambda t: t.reshape(3, 1, 2, 4, 2, 3).permute(0, 2, 4, 1, 3, 5).reshape(3, 2, 2, 12)
    state = {key: weight, f"optimizer.state.fp32_param.{key}": flat(master).clone(),
             f"optimizer.state.exp_avg.{key}": flat(moment).clone(), "decoder.final_layernorm.weight": torch.ones(6).bfloat16(),
             "optimizer.state.fp32_param.decoder.final_layernorm.weight": torch.ones(6)}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(str(folder)), no_dist=True,
             planner=dcp.DefaultSavePlanner(flatten_state_dict=False))
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    torch.save({"iteration": 120}, folder / "common.pt")
    convert(str(folder), out)
    with Consolidated(out) as file:
        assert not differences(
            [(f"{i}", file.dataset("fp32", name.format(i)), master[i], {}) for i in range(3)]
            + [(f"{i}", file.dataset("exp_avg", name.format(i)), moment[i], {}) for i in range(3)])


def test_fsdp_dtensor(tmp_path, out):
    """Plain DCP with wrappers' prefixes and gated layers in halves."""
    folder = tmp_path / ITERATION
    name = "decoder.layers.0.mlp.linear_fc1.weight"
    gate, up, moment = torch.randn(4, 3), torch.randn(4, 3), torch.randn(2, 4, 3)
    state = {f"model.module.{name}_w": gate, f"model.module.{name}_v": up,
             f"optimizer.state.module.{name}_w.exp_avg": moment[0].clone(),
             f"optimizer.state.module.{name}_v.exp_avg": moment[1].clone()}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(str(folder)), no_dist=True,
             planner=dcp.DefaultSavePlanner(flatten_state_dict=False))
    convert(str(folder), out)
    with Consolidated(out) as file:
        assert not differences([("w", file.dataset("fp32", name), torch.cat([gate, up]), {}),
                                ("m", file.dataset("exp_avg", name), moment.reshape(8, 3), {})])
