"""What a conversion may have of the machine: --max-mem holds, --direct changes no byte, --profile tells the phases."""
import filecmp
import os
import re
import shutil
import sys

import pytest

from common import DATA, convert, refused, uckpt

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import many_ranks   # noqa: E402
import tool         # noqa: E402



@pytest.fixture(scope="module")
def two_gigabytes(tmp_path_factory):
    """16 ranks of ZeRO-1: 170 parameters of a million elements, three states of four bytes. Its files are holes."""
    return many_ranks.make(str(tmp_path_factory.mktemp("large") / "ckpt"), 16, 170, 1)


def anonymous_mib(*args):
    code, _, anonymous = tool.peak_memory([tool.binary(), *args])
    assert code == 0
    return anonymous


@pytest.mark.skipif(tool.is_sanitized(), reason="a sanitizer's memory is not ours")
@pytest.mark.parametrize("name,flags", [
    ("out.h5", ()), ("weights.safetensors", ("--states", "fp32", "--dtype", "bf16")),
    ("zero3", ("--to", "deepspeed", "--layout", "dp=3,zero=3")), ("direct.h5", ("--direct",))])
def test_64_mib_are_enough_for_2_gb(name, flags, two_gigabytes, tmp_path):
    out = str(tmp_path / name)
    assert anonymous_mib("convert", "-q", "--no-sync", "--max-mem", "64M", *flags, two_gigabytes, out) < 64
    shutil.rmtree(out, ignore_errors=True)   # not kept with the rest of the folder: 2 GB
    if os.path.exists(out):
        os.remove(out)


@pytest.mark.skipif(tool.is_sanitized(), reason="a sanitizer's memory is not ours")
def test_verify_and_stats_keep_to_it_too(two_gigabytes):
    for verb in ("verify", "stats"):
        assert anonymous_mib(verb, "-q", "--max-mem", "64M", two_gigabytes) < 64


def test_too_little_is_said(two_gigabytes, tmp_path):
    message = refused(two_gigabytes, str(tmp_path / "out.h5"), "--max-mem", "1M", code=2)
    assert "--max-mem" in message


@pytest.mark.parametrize("name,flags", [("out.h5", ()), ("out.safetensors", ()), ("out", ("--to", "dcp", "--layout", "dp=2")),
                                        ("universal", ("--to", "deepspeed-universal"))])
@pytest.mark.parametrize("source", ["deepspeed/zero2-dp3/ckpt", "deepspeed/bf16-zero2-dp2/ckpt"])
def test_direct_output_is_the_same(source, name, flags, tmp_path):
    source = os.path.join(DATA, source)
    paths = [str(tmp_path / way / name) for way in ("cached", "direct")]
    for path, way in zip(paths, ((), ("--direct",))):
        os.mkdir(os.path.dirname(path))
        convert(source, path, *flags, *way)
    found = [sorted(os.path.join(at, name)[len(path):] for at, _, names in os.walk(path) for name in names) or [""]
             for path in paths]
    assert found[0] == found[1]
    for file in found[0]:
        assert filecmp.cmp(paths[0] + file, paths[1] + file, shallow=False), file


def test_direct_where_the_file_system_cannot(tmp_path):
    """A memory file system may be none that can: the bytes are the same."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no memory file system")
    source, out = os.path.join(DATA, "deepspeed/zero2-dp3/ckpt"), f"/dev/shm/uckpt-direct-{os.getpid()}.h5"
    try:
        result = uckpt("convert", "--direct", source, out)
        assert result.code == 0
        assert filecmp.cmp(out, convert(source, str(tmp_path / "cached.h5")), shallow=False)
    finally:
        if os.path.exists(out):
            os.remove(out)


@pytest.mark.parametrize("args,phases", [
    (("convert", "IN", "OUT"), ["open", "join", "lay out", "plan", "preallocate", "copy", "commit", "total"]),
    (("convert", "--verify", "IN", "OUT"), ["open", "copy", "verify", "commit", "total"]),
    (("plan", "IN", "OUT"), ["open", "lay out", "plan", "total"]), (("inspect", "IN"), ["open", "answer", "total"]),
    (("verify", "IN"), ["open", "plan", "read", "total"]), (("stats", "IN"), ["open", "read", "total"])])
def test_profile_tells_the_phases(args, phases, out):
    places = {"IN": os.path.join(DATA, "deepspeed/zero2-dp3/ckpt"), "OUT": out}
    result = uckpt(args[0], "--profile", *(places.get(a, a) for a in args[1:]))
    lines = result.error.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("PHASE "))
    told = {re.split(r"\s{2,}", line)[0]: float(re.split(r"\s{2,}", line)[1]) for line in lines[begin + 1:-1]}
    assert [name for name in told if name in phases] == phases
    assert sum(told.values()) - told["total"] == pytest.approx(told["total"], abs=0.01)
    assert lines[-1].startswith("memcpy ")


@pytest.fixture(scope="module")
def many_chunks(tmp_path_factory):
    """300 tensors in 200 chunks each, as the ranks' results come together in `.metadata`; the items are all alike."""
    import io
    import pickle

    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties,
                                                       TensorStorageMetadata)
    folder, ranks, names = str(tmp_path_factory.mktemp("dcp")), 200, [f"layers.{i}.weight" for i in range(300)]
    buffer = io.BytesIO()
    torch.save(torch.arange(8.0).reshape(2, 4), buffer)
    item, storage = buffer.getvalue(), {}
    for r in range(ranks):
        own = {MetadataIndex(name, torch.Size([2 * r, 0]), r): _StorageInfo(f"__{r}_0.distcp", i * len(item), len(item))
               for i, name in enumerate(names)}
        storage.update(pickle.loads(pickle.dumps(own)))   # of another process: nothing is shared
        with open(os.path.join(folder, f"__{r}_0.distcp"), "wb") as file:
            file.write(item * len(names))
    tensors = {name: TensorStorageMetadata(TensorProperties(dtype=torch.float32), torch.Size([2 * ranks, 4]), [
        ChunkStorageMetadata(torch.Size([2 * r, 0]), torch.Size([2, 4])) for r in range(ranks)]) for name in names}
    with open(os.path.join(folder, ".metadata"), "wb") as file:
        pickle.dump(Metadata(tensors, storage_data=storage), file)
    yield folder, ranks * len(names)
    shutil.rmtree(folder)


@pytest.mark.skipif(tool.is_sanitized(), reason="a sanitizer's memory is not ours")
def test_a_chunk_costs_little_memory(many_chunks):
    folder, chunks = many_chunks
    assert anonymous_mib("ls", folder) * 2**20 < 4 * 2**20 + 220 * chunks


@pytest.mark.skipif(tool.is_sanitized(), reason="a sanitizer's memory is not ours")
def test_a_chunk_to_be_written_costs_little_memory(tmp_path):
    from safetensors.numpy import save_file
    import numpy as np
    source, ranks = str(tmp_path / "model.safetensors"), 200
    save_file({f"layers.{i}.weight": np.zeros((ranks, 4), np.float32) for i in range(300)}, source)
    chunks = 300 * ranks
    mib = anonymous_mib("convert", "-q", "--no-sync", "--to", "dcp", "--layout", f"dp={ranks}", source,
                        str(tmp_path / "out"))
    assert mib * 2**20 < 4 * 2**20 + 750 * chunks
