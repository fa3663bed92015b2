"""`--to dcp`: torch.distributed.checkpoint must load what we write, into live FSDP2 models and without any model."""
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp
from torch.distributed.checkpoint.state_dict import get_state_dict

import fsdp
import native
from common import DATA, Consolidated, convert, expected_tensors, raw_bytes, refused, uckpt
from test_dcp import FIXTURES, save, trained
from test_torch_writer import fixtures as torch_files, typed

WORLDS = (1, 2, 4)
STEPS = 4
TENSOR_PARALLEL = """ucl 1
layout saved over tp {
    "layers.{i}.up.weight"          [d0@tp[chunk], ...]
    "layers.{i}.down.weight"        [d0, d1@tp[chunk]]
    "layers.{i}.norm.*"             replicate
    "{p:embed|head}.weight"         replicate
    "steps_seen"                    replicate
}
"""
BIASES = """    "layers.{i}.up.bias"            [d0@tp[chunk]]
    "layers.{i}.down.bias"          replicate
}
"""


def to_dcp(source, out, *flags):
    return convert(source, out, "--to", "dcp", *flags)


def metadata(folder):
    with open(os.path.join(folder, ".metadata"), "rb") as file:
        return pickle.load(file)


def chunks(folder):
    """{key: boxes} of what is not empty."""
    found = {}
    for key, item in metadata(folder).state_dict_metadata.items():
        if hasattr(item, "chunks"):
            boxes = sorted((tuple(c.offsets), tuple(c.sizes)) for c in item.chunks)
            found[key] = [box for box in boxes if 0 not in box[1]] or boxes[:1]
    return found


def merged(folder, tmp_path):
    """What dcp_to_torch_save makes of it."""
    path = str(tmp_path / "merged.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(folder, path)
    return torch.load(path, weights_only=False)


def leaves(tree, path=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, path + (key,))
    elif isinstance(tree, (list, tuple)) and any(isinstance(v, (dict, list, tuple, torch.Tensor)) for v in tree):
        for i, value in enumerate(tree):
            yield from leaves(value, path + (type(tree).__name__, i))
    else:
        yield path, tree


def differences(ours, expected):
    """Of two trees: tensors bit for bit, everything else by type and value."""
    ours, expected = dict(leaves(ours)), dict(leaves(expected))
    found = [f"{key}: {'missing' if key in expected else 'new'}" for key in ours.keys() ^ expected.keys()]
    for key in ours.keys() & expected.keys():
        a, b = ours[key], expected[key]
        if isinstance(b, torch.Tensor):
            if a.dtype != b.dtype or a.shape != b.shape or raw_bytes(a) != raw_bytes(b):
                found.append(f"{key}: tensors differ")
        elif type(a) is not type(b) or native.differences(typed(a), typed(b)):
            found.append(f"{key}: {a!r}, expected {b!r}")
    return sorted(found)


def check_items(folder):
    """Every item is an archive whose checksums are right, tensors are weights only, and together they fill the files."""
    sizes = {}
    for index, info in metadata(folder).storage_data.items():
        path = os.path.join(folder, info.relative_path)
        with open(path, "rb") as file:
            file.seek(info.offset)
            item = file.read(info.length)
        assert zipfile.ZipFile(io.BytesIO(item)).testzip() is None, index
        torch.load(io.BytesIO(item), weights_only=index.offset is not None)   # objects may be anything
        sizes[path] = sizes.get(path, 0) + info.length
    assert all(os.path.getsize(path) == size for path, size in sizes.items())
    files = {os.path.join(folder, name) for name in os.listdir(folder)}
    assert files == set(sizes) | {os.path.join(folder, ".metadata")}


@pytest.mark.parametrize("flags", [(), ("--layout", "dp=3"), ("--layout", "dp=7", "--shard-size", "8K")], ids=str)
@pytest.mark.parametrize("name", FIXTURES)
def test_a_distributed_checkpoint_comes_back(name, flags, tmp_path):
    """At once and by way of HDF5: all tensors bit for bit, all objects, the same nesting."""
    source = os.path.join(DATA, "torch", name, "ckpt")
    expected = merged(source, tmp_path)
    one, middle, two = (str(tmp_path / n) for n in ("one", "middle.h5", "two"))
    to_dcp(source, one, *flags)
    to_dcp(convert(source, middle), two, *flags)
    for folder in (one, two):
        check_items(folder)
        assert not differences(merged(folder, tmp_path), expected)
        assert metadata(folder).planner_data == metadata(source).planner_data


@pytest.mark.parametrize("name", ("dcp_fsdp2_adamw", "dcp_fsdp2_flat_optim"))
def test_chunks_are_those_of_fsdp2(name, tmp_path):
    source = os.path.join(DATA, "torch", name, "ckpt")
    out = to_dcp(source, str(tmp_path / "out"), "--layout", "dp=4")
    assert chunks(out) == chunks(source)


@pytest.mark.parametrize("name", ("dcp_tp_fsdp2", "dcp_tp_fsdp2_uneven"))
def test_chunks_are_those_of_fsdp2_in_tensor_parallel(name, tmp_path):
    source, spec = os.path.join(DATA, "torch", name, "ckpt"), tmp_path / "rules.ucl"
    has_biases = "model.layers.0.up.bias" in metadata(source).state_dict_metadata
    spec.write_text(TENSOR_PARALLEL.removesuffix("}\n") + (BIASES if has_biases else "}\n"))
    out = to_dcp(source, str(tmp_path / "out"), "--layout", "dp=2,tp=2", "--spec", str(spec))
    assert chunks(out) == chunks(source)
    assert not differences(merged(out, tmp_path), merged(source, tmp_path))


def test_blocks_that_ranks_share_out_are_chunks(tmp_path):
    state = {"qkv": torch.randn(24, 10), "heads": torch.randn(24, 10), "copied": torch.randn(24, 10),
             "embed": torch.randn(13, 10), "columns": torch.randn(10, 12)}
    source, spec = str(tmp_path / "in.pt"), tmp_path / "rules.ucl"
    torch.save(state, source)
    spec.write_text("""ucl 1
layout l over tp {
    "qkv"     [(q: 12@tp | k: 6@tp | v: 6@tp), h]
    "heads"   [4@tp (q: 3 | k: 1 | v: 2), h]
    "copied"  [(q: 12@tp | k: 6 | v: 6), h]
    "embed"   [v@tp[chunk], h]
    "columns" [r, (a: 6@tp | b: 6@tp)]
}
""")
    for layout in ("tp=2", "tp=2,dp=3"):
        out = to_dcp(source, str(tmp_path / layout), "--layout", layout, "--spec", str(spec))
        check_items(out)
        assert not differences(merged(out, tmp_path), state)
    assert chunks(str(tmp_path / "tp=2"))["heads"] == [((0, 0), (12, 10)), ((12, 0), (12, 10))]
    assert chunks(out)["embed"] == [((i, 0), (n, 10)) for i, n in ((0, 3), (3, 3), (6, 1), (7, 2), (9, 2), (11, 2))]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run on 4 ranks that was saved, and how it goes on from there on 1, 2 and 4."""
    folder = str(tmp_path_factory.mktemp("original") / "ckpt")
    fsdp.run(fsdp.Job(4, save=folder, steps=3))
    return folder, {world: fsdp.run(fsdp.Job(world, load=folder, steps=STEPS)) for world in WORLDS}


@pytest.mark.parametrize("way", ["dp=3", "dp=1 by way of HDF5", "dp=4 in small files"])
def test_fsdp2_goes_on_from_what_we_write(way, original, tmp_path):
    source, resumed = original
    if "HDF5" in way:
        source = convert(source, str(tmp_path / "middle.h5"))
    out = to_dcp(source, str(tmp_path / "out"), "--layout", way.split()[0],
                 *(("--shard-size", "16K") if "small" in way else ()))
    for world in WORLDS:
        ours = fsdp.run(fsdp.Job(world, load=out, steps=STEPS))
        assert not differences(ours["loaded"], resumed[world]["loaded"])
        assert ours["losses"] == resumed[world]["losses"]
        assert not differences(ours["ended"], resumed[world]["ended"])


@pytest.mark.parametrize("name", ["zero3-dp4-subgroups", "zero2-dp3", "bf16-zero3-dp2"])
def test_fsdp2_loads_a_deepspeed_checkpoint(name, tmp_path):
    """Weights, Adam's states and the groups' options stand in a live model and optimizer."""
    source = os.path.join(DATA, "deepspeed", name)
    out = to_dcp(os.path.join(source, "ckpt"), str(tmp_path / "out"), "--layout", "dp=3")
    check_items(out)
    expected = expected_tensors(os.path.join(source, "expected.safetensors"))
    state = merged(out, tmp_path)
    groups = state["optim"]["param_groups"]
    trained_names = [name for group in groups for name in group["params"]]
    weights = state["model"]
    params = {n: t for n, t in weights.items() if n in trained_names}
    buffers = {n: t for n, t in weights.items() if n not in trained_names}
    job = fsdp.Job(2, load=out, named=(params, buffers, [group["params"] for group in groups]))
    loaded = fsdp.run(job)["loaded"]
    pairs = {f"fp32/{n}": t for n, t in loaded["model"].items()}
    for n, states in loaded["optim"]["state"].items():
        pairs |= {f"{s}/{n}": t for s, t in states.items()}
    compared = 0
    for key, value in expected.items():
        if not key.startswith(("fp32/", "exp_avg/", "exp_avg_sq/")):
            continue
        if key not in pairs and key.split("/", 1)[1] not in trained_names:
            continue   # a further name of a tied weight: the optimizer has the first one
        assert raw_bytes(pairs[key]) == raw_bytes(value), key
        compared += 1
    assert compared >= 3 * len(trained_names) > 0
    for ours, given in zip(loaded["optim"]["param_groups"], groups):
        assert {k: v for k, v in ours.items() if k != "params"} == {k: given[k] for k in ours if k != "params"}


def test_a_torch_save_file_becomes_what_torch_makes_of_it(tmp_path):
    model, optim = trained()
    state = {"model": model.state_dict(), "optimizer": optim.state_dict(), "epoch": 3, "name": "naïve", "none": None,
             "list": [torch.ones(2), {"deep": torch.zeros(1), "n": 1.5}], "pair": (torch.arange(3), 7), "empty": {},
             "bf16": torch.randn(3, 5).bfloat16(), "f8": torch.randn(9).to(torch.float8_e4m3fn), "nothing": torch.empty(0, 3),
             "u16": torch.tensor([1, 65535], dtype=torch.uint16)}
    source, theirs = str(tmp_path / "in.pt"), str(tmp_path / "theirs")
    torch.save(state, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_save_to_dcp(source, theirs)
    middle = convert(source, str(tmp_path / "middle.h5"))
    for number, (given, layout) in enumerate(((source, "dp=1"), (source, "dp=3"), (middle, "dp=2"))):
        out = to_dcp(given, str(tmp_path / f"out{number}"), "--layout", layout)
        check_items(out)
        assert metadata(out).planner_data == metadata(theirs).planner_data
        assert not differences(merged(out, tmp_path), merged(theirs, tmp_path))


# torch itself cannot read this one back.
@pytest.mark.parametrize("path", [path for path in torch_files() if path != os.path.join("torch", "pt_dtypes", "legacy_stream.pt")])
def test_torch_fixtures_become_what_torch_makes_of_them(path, tmp_path):
    source, theirs = os.path.join(DATA, path), str(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_save_to_dcp(source, theirs)
    out = to_dcp(convert(source, str(tmp_path / "middle.h5")), str(tmp_path / "out"), "--layout", "dp=2")
    check_items(out)
    assert metadata(out).planner_data == metadata(theirs).planner_data
    assert not differences(merged(out, tmp_path), merged(theirs, tmp_path))


def test_tied_names_are_each_written(tmp_path):
    tied = torch.randn(5, 3)
    source = str(tmp_path / "in.pt")
    torch.save({"embed.weight": tied, "head.weight": tied}, source)
    out = to_dcp(source, str(tmp_path / "out"), "--layout", "dp=2")
    assert not differences(merged(out, tmp_path), {"embed.weight": tied, "head.weight": tied})


def test_weights_alone_are_a_model(tmp_path):
    out = to_dcp(os.path.join(DATA, "torch", "hf_llama_gqa", "model"), str(tmp_path / "out"), "--layout", "dp=2", "--dtype", "bf16")
    state = merged(out, tmp_path)
    assert set(state) == {"model"} and all(t.dtype == torch.bfloat16 for t in state["model"].values())


def test_what_was_dropped_is_not_there(tmp_path):
    source = os.path.join(DATA, "torch", "dcp_fsdp2_adamw", "ckpt")
    expected = merged(source, tmp_path)
    out = to_dcp(source, str(tmp_path / "out"), "--states", "param")
    state = merged(out, tmp_path)
    assert not differences(state["model"], expected["model"])
    assert "state" not in state["optim"]


@pytest.mark.parametrize("tree, dropped, left", [
    ({"l": [torch.ones(2), torch.zeros(1), torch.ones(3)]}, "l.1", {"l": [torch.ones(2), None, torch.ones(3)]}),
    ({"l": [torch.ones(2), torch.zeros(1), torch.ones(3)]}, "l.0 l.1", {"l": [None, None, torch.ones(3)]}),
    ({"l": [torch.ones(2), torch.zeros(1)]}, "l.1", {"l": [torch.ones(2)]}),
    ({"l": [torch.ones(2), 3, torch.ones(1)]}, "l.0", {"l": [None, 3, torch.ones(1)]}),
    ({"l": [torch.ones(2), 3]}, "l.0", None),
    ({"l": [{"a": torch.ones(2)}, {"a": torch.ones(2)}]}, "l.0.a", {"l": [None, {"a": torch.ones(2)}]}),
    ({"l": [{"a": torch.ones(2)}, {"a": torch.ones(2)}]}, "l.*", {}),
    ({"l": [[torch.ones(2), torch.ones(1)], torch.ones(3)]}, "l.0.0", {"l": [[None, torch.ones(1)], torch.ones(3)]}),
])
def test_a_list_that_a_tensor_is_dropped_out_of_keeps_its_places(tree, dropped, left, tmp_path):
    tree = {**tree, "w": torch.ones(1)}
    torch.save(tree, tmp_path / "tree.pt")
    for source in (str(tmp_path / "tree.pt"), save(tree, tmp_path / "tree")):
        out = str(tmp_path / f"out{len(source)}")
        flags = [flag for name in dropped.split() for flag in ("--drop", name)]
        if left is None:   # no list of tensors any more, and torch looks for it as one value
            assert "::l: what is left of this list" in refused(source, out, "--to", "dcp", *flags)
            continue
        to_dcp(source, out, *flags)
        assert not differences(merged(out, tmp_path), {**left, "w": torch.ones(1)})
        assert uckpt("verify", out).code == 0


def test_values_with_tensors_inside(tmp_path):
    state = {"model": {"w": torch.randn(4, 3)}, "loader": ({"at": torch.arange(5), "rng": [1, 2]}, torch.tensor(7)), "step": 5}
    source = save(state, tmp_path / "ckpt")
    for given in (source, convert(source, str(tmp_path / "middle.h5"))):
        out = to_dcp(given, str(tmp_path / ("at_once" if given == source else "by_hdf5")), "--layout", "dp=2")
        assert not differences(merged(out, tmp_path), merged(source, tmp_path))


def test_numpy_arrays_inside_objects(tmp_path):
    """Random states, say: they are no tensors of the checkpoint, so nothing may leave them out."""
    state = {"w": torch.randn(4, 3), "array": np.arange(3), "rng": {"numpy": np.random.RandomState(5).get_state()},
             "list": [np.float64(3.5), np.arange(2, dtype=np.uint8)], "loader": ({"at": np.arange(5)}, torch.tensor(7))}
    source = save(state, tmp_path / "ckpt")
    expected = pickle.dumps(numpy_parts(merged(source, tmp_path)))
    for given in (source, convert(source, str(tmp_path / "middle.h5"))):
        out = to_dcp(given, str(tmp_path / ("at_once" if given == source else "by_hdf5")))
        assert pickle.dumps(numpy_parts(merged(out, tmp_path))) == expected


def numpy_parts(state):
    return state["array"], state["rng"], state["list"], state["loader"][0]


def test_numbers_of_the_optimizer_that_are_no_tensors(tmp_path, out):
    """As an older AdamW, Adafactor and bitsandbytes keep their steps: states like others, and objects again in their own kind."""
    model, optim = trained()
    weights, states = get_state_dict(model, optim)
    for state in states["state"].values():
        state.update(step=int(state["step"]), rms=0.25)
    state = {"model": weights, "optim": states, "loops": {"state": {"fit": {"epoch": 3}}}}
    source = save(state, tmp_path / "in")
    for way, folder in ((source, str(tmp_path / "one")), (convert(source, out), str(tmp_path / "two"))):
        to_dcp(way, folder)
        assert not differences(merged(folder, tmp_path), state)
        convert(way, folder + ".ds", "--to", "deepspeed", "--layout", "dp=1,zero=1", "--drop", "rms/*")
        [path] = Path(folder + ".ds").rglob("*optim_states.pt")
        base = torch.load(path, weights_only=False)["optimizer_state_dict"]["base_optimizer_state"]
        assert base["state"][0]["step"] == 2
    with Consolidated(out) as file:
        assert {p for p in file.paths() if p.startswith(("step", "rms", "epoch"))} == {
            f"{s}/{name}" for s in ("step", "rms") for name in states["state"]}
    assert "step" not in merged(to_dcp(source, str(tmp_path / "less"), "--drop", "step/*"), tmp_path)["optim"]["state"]["0.weight"]


def test_what_accelerate_saves_apart_is_one_checkpoint(tmp_path, out):
    model, optim = trained()
    weights, states = get_state_dict(model, optim)
    run = tmp_path / "checkpoint-2"
    save({"model": weights}, run / "pytorch_model_fsdp_0")
    save({"optimizer": states}, run / "optimizer_0")
    (run / "scheduler.pt").write_bytes(b"x")
    assert "scheduler.pt is not part of this checkpoint" in uckpt("ls", str(run)).error
    for source, folder in ((str(run), str(tmp_path / "one")), (convert(str(run), out), str(tmp_path / "two"))):
        check_items(to_dcp(source, folder, "--layout", "dp=2"))
        assert not differences(merged(folder, tmp_path), {"model": weights, "optimizer": states})
    assert not uckpt("convert", "-q", str(run), str(tmp_path / "ds"), "--to", "deepspeed", "--layout", "dp=2,zero=2").code
    save({"model": weights}, run / "pytorch_model_fsdp_1")   # of two models nothing tells whose the optimizer is
    assert "holds 3 checkpoints" in refused(str(run), str(tmp_path / "o.h5"))


def test_to_safetensors_and_torch(tmp_path):
    source = os.path.join(DATA, "torch", "dcp_fsdp2_adamw", "ckpt")
    expected = merged(source, tmp_path)
    weights = expected_tensors(convert(source, str(tmp_path / "w.safetensors"), "--states", "param"))
    assert not differences(weights, expected["model"])
    saved = torch.load(convert(source, str(tmp_path / "w.pt"), "--states", "param"), weights_only=True)
    assert not differences(dict(saved), expected["model"])


@pytest.mark.parametrize("flags", [("--layout", "dp=3"), ("--layout", "dp=4", "--shard-size", "1K"), ()], ids=str)
@pytest.mark.parametrize("name", ["dcp_fsdp2_adamw", "dcp_fsdp2_bf16_two_files_per_rank", "dcp_hf_writer_sharded"])
def test_hugging_face_shards(name, flags, tmp_path):
    """torch's own reader loads them, and torch's own consolidation makes them one model."""
    source = os.path.join(DATA, "torch", name)
    expected = {key.removeprefix("model."): value for key, value in expected_tensors(os.path.join(source, "expected.safetensors")).items()
                if not key.startswith(("optim.", "extra."))}
    shards = convert(os.path.join(source, "ckpt"), str(tmp_path / "shards"), "--to", "dcp-hf", "--states", "param", *flags)
    state = {key: torch.zeros_like(value) for key, value in expected.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, storage_reader=HuggingFaceStorageReader(shards), no_dist=True)
    assert not differences(state, expected)
    # torch 2.13 cannot consolidate integers.
    floats = {key: value for key, value in expected.items() if value.is_floating_point()}
    convert(os.path.join(source, "ckpt"), shards, "-f", "--to", "dcp-hf", "--states", "param", "--drop", "steps_seen", *flags)
    files = {}
    for file in os.listdir(shards):
        for key in expected_tensors(os.path.join(shards, file)):
            files[key] = int(file.split("-")[3])
    (tmp_path / "whole").mkdir()
    consolidate_safetensors_files(shards, str(tmp_path / "whole"), fqn_to_index_mapping=files)
    whole = {}
    for file in (tmp_path / "whole").glob("*.safetensors"):
        whole |= expected_tensors(str(file))
    assert not differences(whole, floats)
    assert not differences(expected_tensors(convert(shards, str(tmp_path / "again.safetensors"))), floats)


def test_a_rank_with_several_boxes_of_a_tensor_has_no_shard(tmp_path, out):
    source, spec = str(tmp_path / "in.pt"), tmp_path / "rules.ucl"
    torch.save({"qkv": torch.randn(24, 10)}, source)
    spec.write_text('ucl 1\nlayout l over tp { "qkv" [(q: 12@tp | k: 6@tp | v: 6@tp), h] }\n')
    message = refused(source, out, "--to", "dcp-hf", "--layout", "tp=2", "--spec", str(spec))
    assert "qkv: the rules give a rank several boxes of it" in message and "--to dcp writes them" in message


def test_two_values_of_one_key_are_refused(tmp_path, out):
    source = str(tmp_path / "in.pt")
    torch.save({"a.b": torch.ones(2), "a": {"b": 1}}, source)
    assert "two values of its tree come to this key" in refused(source, out, "--to", "dcp")
