"""Distributed checkpoints: what torch itself reads of the fixtures, and what it saves now in one process."""
import os
import pickle
import shutil
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from common import DATA, Consolidated, convert, differences, refused, same_number, uckpt
import meeting
from test_fixtures import dcp_path

# torch's own reader knows neither of these.
NOT_READ_BY_TORCH = ("dcp_safetensors_serialization", "dcp_hf_writer_consolidated", "dcp_hf_writer_sharded")
FIXTURES = sorted(n for n in os.listdir(os.path.join(DATA, "torch"))
                  if n.startswith("dcp_") and n not in NOT_READ_BY_TORCH)


def leaves(tree, path=()):
    """(dotted key, value) of what is neither a dict nor a list that holds tensors or dicts, as DCP flattens."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, path + (str(key),))
    elif isinstance(tree, list) and any(isinstance(v, (dict, list, torch.Tensor)) for v in tree):
        for i, value in enumerate(tree):
            yield from leaves(value, path + (str(i),))
    else:
        yield ".".join(path), tree


def compare(out, tree):
    """Every tensor and every other value of the tree stands in the consolidated file."""
    with Consolidated(out) as file:
        objects, pairs = file.objects(), []
        for key, value in leaves(tree):
            if isinstance(value, torch.Tensor):
                state, name = dcp_path(key)
                found = file.dataset(state, name) if state else file.plain(name)
                pairs.append((key, found, value, {}))
            else:
                value = list(value) if isinstance(value, tuple) else value
                assert key in objects and same_number(objects[key], value), key
        assert pairs and not differences(pairs)
        assert len(file.paths()) == len(pairs)


@pytest.mark.parametrize("name", FIXTURES)
def test_holds_what_dcp_to_torch_save_reads(name, out, tmp_path):
    checkpoint, merged = os.path.join(DATA, "torch", name, "ckpt"), tmp_path / "merged.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(checkpoint, merged)
    convert(checkpoint, out)
    compare(out, torch.load(merged, weights_only=False))


@pytest.mark.parametrize("name", FIXTURES)
def test_the_consolidated_file_gives_the_same_again(name, out, tmp_path):
    """checkpoint → HDF5 → HDF5: the tensors and objects of the second file are those of the first."""
    checkpoint, again = os.path.join(DATA, "torch", name, "ckpt"), str(tmp_path / "again.h5")
    convert(checkpoint, out)
    convert(out, again)
    with Consolidated(out) as one, Consolidated(again) as other:
        assert one.paths() == other.paths() and one.objects() == other.objects()
        assert all((one.file[p][()] == other.file[p][()]).all() for p in one.paths())


def save(state, folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, **options), no_dist=True)
    return str(folder)


def trained():
    torch.manual_seed(6)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3, bias=False))
    optim = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        model(torch.randn(4, 5)).square().sum().backward()
        optim.step()
        optim.zero_grad()
    return model, optim


@pytest.mark.parametrize("options", [{}, {"single_file_per_rank": False}, {"thread_count": 3}])
def test_all_kinds_of_values(options, out, tmp_path):
    torch.manual_seed(1)
    strided = torch.randn(6, 4).t()
    state = {
        "model": {"bf16": torch.randn(3, 5).bfloat16(), "f8": torch.randn(9).to(torch.float8_e4m3fn),
                  "u16": torch.tensor([1, 2, 65535], dtype=torch.uint16), "bool": torch.tensor([True, False]),
                  "c64": torch.randn(3, dtype=torch.complex64), "strided": strided,
                  "view": torch.arange(100.)[10:14], "empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)},
        "list": [torch.ones(2), {"deep": torch.zeros(1)}],
        "none": None, "text": "a.b", "numbers": [1, 2.5, True], "big": 2 ** 40,
    }
    folder = save(state, tmp_path / "ckpt", **options)
    convert(folder, out)
    compare(out, state)


def test_states_with_numbers_are_tied_by_the_order_of_the_parameters(out, tmp_path):
    model, optim = trained()
    folder = save({"model": model.state_dict(), "optim": optim.state_dict()}, tmp_path / "ckpt")
    convert(folder, out)
    names = [name for name, _ in model.named_parameters()]
    with Consolidated(out) as file:
        pairs = []
        for i, entry in optim.state_dict()["state"].items():
            pairs += [(f"{names[i]} {s}", file.dataset(s, names[i]), value, {}) for s, value in entry.items()]
        pairs += [(name, file.dataset("param", name), value, {}) for name, value in model.state_dict().items()]
        assert not differences(pairs)


def states_of(model, optim, tmp_path, name):
    """Whether convert, ls and inspect say that an order is assumed, and whether exp_avg came under the right names."""
    sum(p.square().sum() * (i + 1) for i, p in enumerate(model.parameters())).backward()
    optim.step()
    folder = save({"model": model.state_dict(), "optim": optim.state_dict()}, tmp_path / name)
    out = str(tmp_path / f"{name}.h5")
    ran = [uckpt("convert", folder, out), uckpt("ls", folder), uckpt("inspect", folder)]
    said = {"order of the model's" in r.error + r.text for r in ran}
    assert len(said) == 1 and not any(r.code for r in ran)
    with Consolidated(out) as file:
        pairs = [(n, file.dataset("exp_avg", n), optim.state[p]["exp_avg"], {}) for n, p in model.named_parameters()]
        return said.pop(), not differences(pairs)


def test_an_order_that_shapes_do_not_prove_is_said_to_be_assumed(tmp_path):
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 4)})
    turned = [*model["head"].parameters(), *model["body"].parameters()]
    assert states_of(model, torch.optim.AdamW(turned), tmp_path, "alike") == (True, False)
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 5), "head": torch.nn.Linear(5, 6)})
    turned = [*model["head"].parameters(), *model["body"].parameters()]
    assert states_of(model, torch.optim.AdamW(turned), tmp_path, "unlike") == (False, True)


def test_states_of_named_parameters_are_tied_by_their_names(out, tmp_path):
    model = torch.nn.ModuleList([torch.nn.Linear(3, 3, bias=False) for _ in range(3)])
    # Shapes and order tell nothing here: one is left out, and the others are turned round.
    optim = torch.optim.AdamW([("2.weight", model[2].weight), ("0.weight", model[0].weight)], lr=1e-2)
    sum(m(torch.ones(1, 3)).sum() * (i + 1) for i, m in enumerate(model)).backward()
    optim.step()
    folder = save({"model": model.state_dict(), "optim": optim.state_dict()}, tmp_path / "ckpt")
    convert(folder, out)
    state = optim.state_dict()["state"]
    with Consolidated(out) as file:
        assert not differences([("2", file.dataset("exp_avg", "2.weight"), state[0]["exp_avg"], {}),
                                ("0", file.dataset("exp_avg", "0.weight"), state[1]["exp_avg"], {})])


def test_a_save_without_paths_keeps_whole_keys(out, tmp_path):
    state = {"model.embed.weight": torch.randn(4, 2), "lm_head.weight": torch.randn(4, 2)}
    folder = tmp_path / "ckpt"
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), planner=planner, no_dist=True)
    convert(str(folder), out)
    with Consolidated(out) as file:
        assert not differences([(k, file.dataset("param", k), v, {}) for k, v in state.items()])


def test_whole_state_dicts_are_said_to_be_no_weights(tmp_path):
    model, optim = trained()
    folder = str(tmp_path / "ckpt")
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": model.state_dict()}, storage_writer=dcp.FileSystemWriter(folder), planner=planner, no_dist=True)
        dcp_to_torch_save(folder, tmp_path / "way_out.pt")
    assert "8 tensors lie inside objects" in uckpt("ls", folder).error
    assert " param " in uckpt("ls", str(tmp_path / "way_out.pt")).text


def test_a_changed_byte_in_a_weight_is_found(out, tmp_path):
    folder = save({"w": torch.arange(1000.)}, tmp_path / "ckpt")
    path = os.path.join(folder, "__0_0.distcp")
    with open(path, "r+b") as file:
        at = file.read().index(torch.tensor(777.).numpy().tobytes() + torch.tensor(778.).numpy().tobytes())
        file.seek(at)
        file.write(b"\x01")
    assert "expected checksum" in refused(folder, out)


def test_items_that_an_extension_compressed_are_refused_by_its_name(out, tmp_path):
    folder = save({"a": torch.ones(3), "n": 5}, tmp_path / "ckpt")
    path = os.path.join(folder, ".metadata")
    with open(path, "rb") as file:
        metadata = pickle.load(file)
    for info in metadata.storage_data.values():
        info.transform_descriptors = ["stream.zstd/1"]
    with open(path, "wb") as file:
        pickle.dump(metadata, file)
    message = refused(folder, out)
    assert "went through stream.zstd/1, which is not read" in message and "saved again without extensions" in message


def test_a_missing_file_is_named_with_what_it_takes_along(out, tmp_path):
    folder = save({"a": torch.ones(3), "b": torch.ones(4)}, tmp_path / "ckpt", single_file_per_rank=False)
    os.remove(os.path.join(folder, "__0_1.distcp"))
    message = refused(folder, out)
    assert "__0_1.distcp is missing (1 of 2 data files are here): 1 tensor cannot be rebuilt" in message


def saved_by_rank(rank, folder, meet):
    meeting.join(rank, 2, meet)
    mesh = init_device_mesh("cpu", (2,))
    state = {"model": {"cut": distribute_tensor(torch.arange(10.).reshape(5, 2), mesh, [Shard(0)]),
                       "plain": torch.ones(2)}, "step": 3, "rank": rank}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, use_collectives=False)
    dist.barrier()
    dist.destroy_process_group()


def test_what_each_rank_saved_for_itself_is_one_checkpoint(out, tmp_path):
    folder = str(tmp_path / "ckpt")
    torch.multiprocessing.spawn(saved_by_rank, (folder, str(tmp_path)), nprocs=2)
    assert not os.path.exists(os.path.join(folder, ".metadata"))
    convert(folder, out)
    with Consolidated(out) as file:
        assert not differences([("cut", file.dataset("param", "cut"), torch.arange(10.).reshape(5, 2), {}),
                                ("plain", file.dataset("param", "plain"), torch.ones(2), {})])
        objects = file.objects()
        assert objects["step"] == 3 and "step@1" not in objects
        assert (objects["rank"], objects["rank@1"]) == (0, 1)
    # A replica that differs is not passed over.
    path = os.path.join(folder, "__1_0.distcp")
    with open(path, "rb") as file:
        data = bytearray(file.read())
    at = data.index(torch.ones(2).numpy().tobytes())
    data[at:at + 4] = torch.tensor([2.]).numpy().tobytes()
    with open(path, "wb") as file:
        file.write(data)
    assert "replica on another rank differs" in refused(folder, out + ".again.h5", "--no-crc")
    os.remove(os.path.join(folder, "__1.metadata"))
    assert "is in none of its 1 chunks" in refused(folder, out + ".again.h5")


def test_folders_that_only_look_alike(tmp_path):
    folder = save({"a": torch.ones(3)}, tmp_path / "run" / "step-10")
    assert "step-10" in uckpt("inspect", str(tmp_path / "run")).error
    os.rename(os.path.join(folder, ".metadata"), os.path.join(folder, ".metadata.tmp"))
    assert "the save was never finished" in uckpt("inspect", folder).error


def test_empty_files_of_ranks_are_no_strangers(tmp_path):
    """torch leaves one for each rank that has nothing to write."""
    folder = str(tmp_path / "ckpt")
    shutil.copytree(os.path.join(DATA, "torch/dcp_fsdp2_adamw/ckpt"), folder)
    stranger = tmp_path / "ckpt" / "__9_0.distcp"
    stranger.touch()
    assert "__9_0" not in uckpt("ls", folder).error
    stranger.write_bytes(b"x")
    assert "__9_0.distcp is not part of this checkpoint: not read" in uckpt("ls", folder).error
