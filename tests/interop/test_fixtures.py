"""Every fixture with an oracle: converted, read back with h5py, compared bit for bit."""
import glob
import json
import os

import pytest

from common import (DATA, Consolidated, consolidated_path, convert, differences, expected_tensors, look_up, raw_bytes,
                    refused, same_number, stored_bytes, uckpt)


def names(pattern):
    return sorted(os.path.relpath(p, DATA) for p in glob.glob(os.path.join(DATA, pattern)))


def load(*path):
    with open(os.path.join(DATA, *path), encoding="utf-8") as file:
        return json.load(file)


DEEPSPEED = [os.path.basename(n) for n in names("deepspeed/*-*")]
# A universal folder is whole whatever the run was.
TP = [n for n in DEEPSPEED if "tp2" in n and not n.startswith("universal")]


def tolerance(expected):
    """The README's rule: exact, unless the oracle trained apart from the checkpoint."""
    oracle = expected.get("oracle") or ""
    if "full training" in oracle:
        return {"rtol": 2e-6, "atol": 1e-7}
    if "rounding" in oracle:
        return {"rtol": 1e-3, "atol": 2e-5}
    return {}


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed(name, out):
    expected = load("deepspeed", name, "expected.json")
    tensors = expected_tensors(os.path.join(DATA, "deepspeed", name, "expected.safetensors"))
    convert(os.path.join(DATA, "deepspeed", name, "ckpt"), out)
    with Consolidated(out) as file:
        # No tolerance is needed where a state merely is in the file; it is given to the oracle, not to us.
        allowed = tolerance(expected)
        assert not differences((key, file.dataset(*consolidated_path(key)), value, allowed)
                               for key, value in tensors.items())
        check_steps(file, expected, tensors)
        check_tied(file, expected)
        check_groups(file, name, expected)
        check_nothing_else(file, expected, tensors)


def check_steps(file, expected, tensors):
    steps = expected["step"]
    if not isinstance(steps, dict):
        steps = {key[5:]: steps for key in tensors if key.startswith("fp32/")}
    for name, step in steps.items():
        dataset = file.dataset("step", name)
        assert dataset is not None, f"no step of {name}"
        assert float(dataset[()]) == step, name
    iteration = expected.get("global_steps", expected.get("step"))
    assert file.file.attrs["iteration"] == iteration


def check_tied(file, expected):
    for alias, stored in (expected.get("shared") or {}).items():
        assert file.address(f"fp32/{alias}") == file.address(f"fp32/{stored}"), alias


def check_groups(file, name, expected):
    """Learning rates and the like: found in the JSON view of an optimizer file."""
    if "param_groups" not in expected or "elastic" in name:
        return   # the elastic form does not store them
    views = list(file.objects().values())
    for i, group in enumerate(expected["param_groups"]):
        for key, value in group.items():
            for prefix in ("optimizer_state_dict.base_optimizer_state.", "optimizer_state_dict.optimizer_state_dict.",
                           ""):
                hits = [look_up(view, f"{prefix}param_groups.{i}.{key}") for view in views]
                if any(found and same_number(hit, value) for found, hit in hits):
                    break
            else:
                pytest.fail(f"param_groups.{i}.{key} = {value} is in no object")


def check_nothing_else(file, expected, tensors):
    """No tensor that the oracle does not know, but steps, further names of tied ones, and client state's own."""
    known = {"/".join(consolidated_path(key)) for key in tensors}
    aliases = set(expected.get("shared") or {}) | set(expected.get("tied") or {})
    extra = {path for path in file.paths() - known
             if not path.startswith(("step/", "other/")) and path.split("/", 1)[1] not in aliases}
    assert not extra


@pytest.mark.parametrize("name", TP)
def test_inferred_rules_give_the_identical_file(name, out, tmp_path):
    checkpoint = os.path.join(DATA, "deepspeed", name, "ckpt")
    rules, again = tmp_path / "rules.ucl", str(tmp_path / "again.h5")
    inferred = uckpt("infer", checkpoint)
    assert inferred.code == 0
    rules.write_bytes(inferred.out)
    assert uckpt("check", str(rules), checkpoint).code == 0
    assert uckpt("fmt", "--check", str(rules)).code == 0
    convert(checkpoint, out)
    convert(checkpoint, again, "--spec", str(rules))
    with open(out, "rb") as one, open(again, "rb") as other:
        assert one.read() == other.read()


def plain_files():
    for path in names("torch/pt_*/*.pt"):
        if "pt_damaged" not in path and "pt_sparse" not in path and not path.endswith("deflated.pt"):
            yield path


def compare_plain(out, tensors):
    with Consolidated(out) as file:
        pairs = []
        for key, value in tensors.items():
            dataset = file.plain(key.removesuffix("#real_imag"))
            if key.endswith("#real_imag"):
                # safetensors has no complex128: its parts lie side by side on the last dimension.
                assert dataset is not None and raw_bytes(value) == stored_bytes(dataset)
                assert tuple(dataset.shape) == tuple(value.shape[:-1])
                continue
            pairs.append((key, dataset, value, {}))
        assert not differences(pairs)
        return len(file.paths())


@pytest.mark.parametrize("path", list(plain_files()))
def test_torch_file(path, out):
    folder = os.path.dirname(path)
    tensors = expected_tensors(os.path.join(DATA, folder, "expected.safetensors"))
    expected = load(folder, "expected.json")
    convert(os.path.join(DATA, path), out)
    compare_plain(out, tensors)
    with Consolidated(out) as file:
        views = list(file.objects().values())
        missing = [key for key, value in expected.get("scalars", {}).items() if not scalar_found(views, key, value)]
        assert not missing, missing[:20]


def scalar_found(views, key, expected):
    for view in views:
        found, value = look_up(view, key)
        if not found:
            continue
        if isinstance(expected, dict) and "__type__" in expected:
            return True   # a class instance: its place is kept, its spelling is ours
        if isinstance(expected, dict) and "__bytes_hex__" in expected:
            shown = expected["__bytes_hex__"].rstrip(".")
            return isinstance(value, dict) and value.get("__bytes__", "").startswith(shown)
        if same_number(value, expected):
            return True
    return False


@pytest.mark.parametrize("path", names("torch/pt_sparse_quantized/*.pt"))
def test_sparse_and_quantised_are_listed_but_refused(path, out):
    full = os.path.join(DATA, path)
    listed = uckpt("ls", "-a", full)
    assert listed.code == 0 and "coo" in listed.text
    refused(full, out)


@pytest.mark.parametrize("path", names("torch/pt_damaged/*.pt"))
def test_damaged_torch_file(path, out):
    refused(os.path.join(DATA, path), out)


def test_deflated_archive_is_refused_with_a_way_out(out):
    assert "hint: " in refused(os.path.join(DATA, "torch/pt_repacked_zip/deflated.pt"), out)


@pytest.mark.parametrize("path", names("torch/hf_*/model"))
def test_hugging_face_folder(path, out):
    tensors = expected_tensors(os.path.join(DATA, os.path.dirname(path), "expected.safetensors"))
    convert(os.path.join(DATA, path), out)
    assert compare_plain(out, tensors) == len(tensors)


DCP = [os.path.basename(n) for n in names("torch/dcp_*")]


def dcp_path(key):
    """Where a key of a distributed checkpoint stands: weights by their names, optimizer states beside them."""
    for head in ("optim.state.", "state."):
        if key.startswith(head):
            name, state = key[len(head):].rsplit(".", 1)
            return state, name
    return None, key.removeprefix("model.")


def compare_dcp(out, tensors):
    with Consolidated(out) as file:
        pairs = []
        for key, value in tensors.items():
            state, name = dcp_path(key)
            pairs.append((key, file.dataset(state, name) if state else file.plain(name), value, {}))
        assert not differences(pairs)
        assert len(file.paths()) == len(tensors)
        return file.objects()


@pytest.mark.parametrize("name", DCP)
def test_distributed_checkpoint(name, out):
    folder = os.path.join(DATA, "torch", name)
    expected = load("torch", name, "expected.json")
    convert(os.path.join(folder, "ckpt"), out)
    objects = compare_dcp(out, expected_tensors(os.path.join(folder, "expected.safetensors")))
    for key, value in expected["scalars"].items():
        assert key in objects and same_number(objects[key], value), key


def test_shards_below_consolidated_files_hold_the_same(out):
    folder = os.path.join(DATA, "torch", "dcp_hf_writer_consolidated")
    convert(os.path.join(folder, "ckpt", "sharded"), out)
    compare_dcp(out, expected_tensors(os.path.join(folder, "expected.safetensors")))


def test_safetensors_dtypes(out):
    folder = os.path.join(DATA, "torch/st_dtypes")
    convert(os.path.join(folder, "model"), out)
    headers = load("torch/st_dtypes/expected.json")["header"]
    with Consolidated(out) as file:
        for name, expected in load("torch/st_dtypes/expected_bytes.json").items():
            dataset = file.plain(name)
            assert dataset is not None, name
            assert stored_bytes(dataset).hex() == expected, name
            # Two values in a byte have no HDF5 type: bytes are stored, the true shape stands in an attribute.
            assert list(dataset.attrs.get("shape", dataset.shape)) == headers[name]["shape"], name


# Stricter than the reference reader, on purpose: what two readers may understand differently is refused.
STRICTER = {"duplicate_key", "extra_field", "leading_spaces"}


@pytest.mark.parametrize("path", names("torch/st_validation/files/*.safetensors"))
def test_safetensors_verdict_is_the_reference_readers(path):
    name = os.path.splitext(os.path.basename(path))[0]
    accepted = load("torch/st_validation/expected.json")[name]["accepted"]
    result = uckpt("inspect", os.path.join(DATA, path))
    if name not in STRICTER:
        assert result.code == (0 if accepted else 1), result.error
