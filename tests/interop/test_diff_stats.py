"""diff and stats against numpy: which elements are apart, by how much and where; what tensors are like."""
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common import DATA, convert, tool, uckpt

REALS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8,
         torch.int16, torch.int32, torch.int64, torch.bool]
COMPLEX = [torch.complex64, torch.complex128]
LLAMA = os.path.join(DATA, "torch", "megatron_llama_tp_pp")


def answer(verb, *args, code=0):
    """What --json prints; there is no error line beside it."""
    result = tool.run(verb, "--json", "--progress", "none", *args)
    assert not result.problems() and result.code == code, f"exit {result.code}: {result.text}\n{result.error}"
    return json.loads(result.text)


def values(tensor):
    """The numbers of a tensor, in doubles."""
    wide = tensor.to(torch.complex128) if tensor.is_complex() else tensor.to(torch.float64)
    return wide.numpy()


def randoms(seed, dtypes, size=(37, 129), odd=True):
    """A tensor of each type; floats have zeros of both signs, infinities, NaNs and denormals among them."""
    random = np.random.default_rng(seed)
    out = {}
    for dtype in dtypes:
        t = torch.from_numpy(np.array(random.standard_normal(size) * 50))
        if dtype.is_complex:
            t = torch.complex(t, torch.from_numpy(np.array(random.standard_normal(size))))
        if odd and (dtype.is_floating_point or dtype.is_complex):
            flat = t.view(-1)
            for value in (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-310 if dtype == torch.float64 else 1e-7):
                flat[torch.from_numpy(random.integers(0, flat.numel(), 5))] = value
        out[str(dtype)[6:]] = (t > 0) if dtype == torch.bool else t.to(dtype)
    return out


def save(path, tensors):
    """A file whose kind its name tells: torch keeps complex numbers, safetensors tells other libraries'."""
    if path.endswith(".safetensors"):
        save_file({name: t.clone() for name, t in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def moved(tensors, seed):
    """Some elements a little other, some far off, some swapped for other ones."""
    random = np.random.default_rng(seed)
    out = {}
    for name, t in tensors.items():
        t = t.clone()
        flat, n = t.view(-1), t.numel()
        some, more = (torch.from_numpy(random.integers(0, n, k)) for k in (40, 20))
        if t.dtype == torch.bool:
            flat[some] = ~flat[some]
        elif t.is_floating_point() or t.is_complex():
            flat[some] = (flat[some].to(torch.complex128 if t.is_complex() else torch.float64) * 1.0005).to(t.dtype)
            flat[more] = flat[torch.from_numpy(random.integers(0, n, 20))]
        else:
            flat[some] = flat[some] + 1
        out[name] = t
    return out


def isclose(x, y, rtol, atol):
    with np.errstate(all="ignore"):
        return np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("rtol,atol", [(None, None), (0, 0), (1e-3, 0), (0, 0.05), (1e-5, 1e-8), (1e-2, 1)])
@pytest.mark.parametrize("kinds", [("a.safetensors", "b.pt"), ("a.pt", "b.pt")])
def test_elements_apart_are_those_of_numpy(tmp_path, rtol, atol, kinds):
    dtypes = REALS + (COMPLEX if kinds[0].endswith(".pt") else [])
    first = randoms(1, dtypes)
    second = moved(first, 2)
    a, b = save(str(tmp_path / kinds[0]), first), save(str(tmp_path / kinds[1]), second)
    flags = [] if rtol is None else ["--rtol", repr(float(rtol)), "--atol", repr(float(atol))]
    report = answer("diff", a, b, *flags, code=1)
    assert report["compared"] == len(first) and not report["missing"] and not report["extra"]
    found = {pair["path"].split("/")[1]: pair for key in ("different", "within", "other_bits") for pair in report[key]}
    for name, t in first.items():
        x, y = values(t), values(second[name])
        close = isclose(x, y, rtol or 0, atol or 0)
        pair = found.get(name, {"different": 0, "not_finite": 0, "other_bits": 0, "within": 0})
        assert pair["different"] == np.count_nonzero(~close), name
        size = t.element_size()
        bits = (t.contiguous().view(-1).view(torch.uint8).view(-1, size) != second[name].contiguous().view(-1).view(torch.uint8).view(-1, size))
        assert pair["other_bits"] == int(bits.any(1).sum()), name
        finite = np.isfinite(x) & np.isfinite(y)
        assert pair["not_finite"] == np.count_nonzero(~close & ~finite), name
        apart = ~close & finite
        if not apart.any():
            assert "max_abs" not in pair
            continue
        distance = np.where(apart, np.abs(np.where(apart, x, 0) - np.where(apart, y, 0)), -1)
        assert pair["max_abs"] == pytest.approx(distance.max(), rel=1e-14), name
        at = tuple(pair["max_abs_at"]["at"])
        assert distance[at] == distance.max() and at == np.unravel_index(np.argmax(distance), distance.shape), name
        if not t.is_complex() and t.dtype != torch.bool:
            assert np.float32(pair["max_abs_at"]["a"]) == np.float32(x[at]) and np.float32(pair["max_abs_at"]["b"]) == np.float32(y[at])
        with np.errstate(all="ignore"):
            relative = np.where(apart & (y != 0), distance / np.abs(y), -1)
        if (relative >= 0).any():
            assert pair["max_rel"] == pytest.approx(relative.max(), rel=1e-14), name


def test_other_bits_of_the_same_numbers(tmp_path):
    zeros = torch.zeros(4)
    nans = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    other = torch.tensor([0x7FC00000, -1], dtype=torch.int32).view(torch.float32)
    a = save(str(tmp_path / "a.safetensors"), {"zeros": zeros, "nans": nans})
    b = save(str(tmp_path / "b.safetensors"), {"zeros": -zeros, "nans": other})
    report = answer("diff", a, b, code=1)
    assert {p["path"]: p["other_bits"] for p in report["other_bits"]} == {"param/zeros": 4, "param/nans": 1}
    assert not report["different"]
    assert "of other bits" in uckpt("diff", a, b).error
    assert answer("diff", "--atol", "0", a, b)["same"]


def test_missing_extra_shape_and_type(tmp_path):
    one = torch.ones(2, 3)
    a = save(str(tmp_path / "a.safetensors"), {"same": one, "gone": one, "shape": one, "type": one, "number": one})
    b = save(str(tmp_path / "b.safetensors"),
             {"same": one, "new": one, "shape": torch.ones(3, 2), "type": one.bfloat16(), "number": torch.full((2, 3), 2.0).half()})
    report = answer("diff", a, b, code=1)
    assert [p["path"] for p in report["missing"]] == ["param/gone"]
    assert [p["path_b"] for p in report["extra"]] == ["param/new"]
    assert [(p["path"], p["shape_a"], p["shape_b"]) for p in report["shape"]] == [("param/shape", [2, 3], [3, 2])]
    assert sorted((p["path"], p["dtype_a"], p["dtype_b"]) for p in report["dtype"]) == \
        [("param/number", "fp32", "fp16"), ("param/type", "fp32", "bf16")]
    report = answer("diff", "--ignore-dtype", "--drop", "shape", "--drop", "gone", "--drop", "new", a, b, code=1)
    assert not report["dtype"] and not report["missing"] and not report["extra"]
    assert [(p["path"], p["different"], p["max_abs"]) for p in report["different"]] == [("param/number", 6, 1)]
    assert answer("diff", "--ignore-dtype", "--select", "[st]*e", "--select", "type", a, b)["compared"] == 1
    text = uckpt("diff", a, b)
    assert text.code == 1 and "missing in B: param/gone: fp32 [2, 3]" in text.text and "extra in B: param/new" in text.text
    assert uckpt("diff", a, str(tmp_path / "none.h5")).code == 2
    assert uckpt("diff", "--rtol", "-1", a, b).code == 2


def test_names_are_mapped(tmp_path):
    one = torch.arange(4.0)
    a = save(str(tmp_path / "a.safetensors"), {f"model.layers.{i}.w": one + i for i in range(3)} | {"model.head": one})
    b = save(str(tmp_path / "b.safetensors"), {f"blocks.{i + 1}.w": one + i for i in range(3)} | {"lm.head": one})
    rules = ["model.layers.{i}.{x:**}=blocks.{i+1}.{x}", "model.{x:*}=lm.{x}"]
    assert answer("diff", *(flag for rule in rules for flag in ("--map", rule)), a, b)["compared"] == 4
    file = tmp_path / "names.txt"
    file.write_text("# A = B\n\n" + "\n".join(rules) + "\n")
    assert answer("diff", "--map", file, a, b)["same"]
    report = answer("diff", "--map", rules[0], a, b, code=1)
    assert [p["path"] for p in report["missing"]] == ["param/model.head"] and report["compared"] == 3
    for bad in ("model.*=x.*", "model.{i}={j}", "nothing.{x:**}=y.{x}", "{x:**}=one", "{x"):
        result = uckpt("diff", "--map", bad, a, b)
        assert result.code == 2 and "--map" in result.error, bad


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """One model of Megatron's, in its own two formats and in others, each laid out in another way."""
    folder = tmp_path_factory.mktemp("forms")
    source = os.path.join(LLAMA, "torch_dist_fully_reshardable")
    out = {"torch_dist": source, "hdf5": convert(source, str(folder / "all.h5"))}
    out["megatron-tp2"] = convert(out["hdf5"], str(folder / "tp2"), "--to", "megatron", "--layout", "tp=2,pp=1")
    out["dcp"] = convert(out["hdf5"], str(folder / "dcp"), "--to", "dcp", "--layout", "dp=3")
    out["deepspeed"] = convert(out["hdf5"], str(folder / "ds"), "--to", "deepspeed", "--layout", "tp=1,dp=2,zero=2", "--missing", "zero")
    return out


@pytest.mark.parametrize("first,second", [("torch_dist", "hdf5"), ("torch_dist", "megatron-tp2"), ("megatron-tp2", "hdf5"), ("megatron-tp2", "dcp"),
                                          ("dcp", "torch_dist"), ("deepspeed", "megatron-tp2"), ("hdf5", "deepspeed"), ("deepspeed", "dcp")])
def test_one_model_in_two_layouts(forms, first, second):
    flags = ["--states", "fp32,exp_avg,exp_avg_sq"] if first != "dcp" else ["--states", "param,exp_avg,exp_avg_sq"]
    report = answer("diff", *flags, forms[first], forms[second])
    assert report["compared"] == 81 and report["equal"] == report["compared"]


@pytest.mark.parametrize("fixture", ["zero2-dp3", "bf16-zero3-dp2", "zero1-tp2-dp2", "moe-ep2-zero1-dp4"])
def test_a_deepspeed_checkpoint_and_its_file(tmp_path, fixture):
    source = os.path.join(DATA, "deepspeed", fixture, "ckpt")
    whole = convert(source, str(tmp_path / "all.h5"))
    assert answer("diff", source, whole)["same"] and answer("diff", whole, source)["same"]
    here, there = (answer("stats", path)["tensors"] for path in (source, whole))
    for one in (here, there):
        for t in one:
            t.pop("alias_of", None)
    key = lambda t: (t["state"], t["name"])  # noqa: E731
    assert sorted(here, key=key) == sorted(there, key=key)  # the very same digits in another layout


def test_one_changed_element_is_found_in_every_form(forms, tmp_path):
    import h5py
    import shutil
    copy = str(tmp_path / "changed.h5")
    shutil.copy(forms["hdf5"], copy)
    with h5py.File(copy, "r+") as file:
        name = next(name for name in file["fp32"] if "qkv" in name)
        was = float(file["fp32"][name][5, 3])
        file["fp32"][name][5, 3] = was + 0.5
    for form in ("torch_dist", "megatron-tp2", "deepspeed"):
        report = answer("diff", "--states", "fp32", forms[form], copy, code=1)
        pair, = report["different"]
        assert pair["path"] == f"fp32/{name}" and pair["different"] == 1 and pair["max_abs_at"]["at"] == [5, 3]
        assert pair["max_abs"] == pytest.approx(0.5, rel=1e-6) and pair["max_abs_at"]["a"] == pytest.approx(was, rel=1e-6)
        assert report["equal"] == report["compared"] - 1


def expected_stats(tensor):
    """By numpy, of the finite elements; complex ones by their magnitudes."""
    x = values(tensor).reshape(-1)
    nan = np.isnan(x)
    infinite = np.isinf(x) & ~nan
    finite = np.abs(x[~nan & ~infinite]) if tensor.is_complex() else x[~nan & ~infinite]
    out = {"elements": x.size, "zero": np.count_nonzero(x == 0), "nan": np.count_nonzero(nan), "inf": np.count_nonzero(infinite)}
    if tensor.is_floating_point():
        tiny = torch.finfo(tensor.dtype).smallest_normal
        out["denormal"] = np.count_nonzero((x != 0) & (np.abs(x) < tiny))
    if finite.size == 0:
        return out | dict.fromkeys(("min", "max", "mean", "std")) | {"norm": 0}
    return out | {"min": finite.min(), "max": finite.max(), "mean": finite.mean(), "std": finite.std(),
                  "norm": np.sqrt(np.square(finite).sum())}


@pytest.mark.parametrize("size", [(), (1,), (7,), (2048,), (2049,), (37, 129), (5, 60, 70), (0, 4)])
def test_statistics_are_those_of_numpy(tmp_path, size):
    tensors = {name: t.clone() for name, t in randoms(3, REALS + COMPLEX, size, odd=int(np.prod(size)) > 0).items()}
    tensors["nothing_finite"] = torch.full(size or (1,), float("nan"))
    path = save(str(tmp_path / "a.pt"), tensors)
    found = {t["name"]: t for t in answer("stats", path)["tensors"]}
    assert found.keys() == tensors.keys()
    for name, t in tensors.items():
        for key, want in expected_stats(t).items():
            have = found[name][key]
            if want is None or key in ("elements", "zero", "nan", "inf", "denormal"):
                assert have == want, (name, key)
            else:
                assert have == pytest.approx(want, rel=1e-11, abs=1e-11), (name, key)


def test_wide_integers_keep_their_digits(tmp_path):
    path = save(str(tmp_path / "a.pt"), {"n": torch.tensor([2**63 - 1, -2**63, 7])})
    n, = answer("stats", path)["tensors"]
    assert (n["min"], n["max"]) == (-2**63, 2**63 - 1)
    other = save(str(tmp_path / "b.pt"), {"n": torch.tensor([2**63 - 2, -2**63, 7])})
    pair, = answer("diff", path, other, code=1)["different"]
    assert pair["max_abs"] == 1 and pair["max_abs_at"] == {"at": [0], "a": 2**63 - 1, "b": 2**63 - 2}


def test_fail_on_names_the_tensors(tmp_path):
    path = save(str(tmp_path / "a.safetensors"), {
        "good": torch.ones(3), "bad": torch.tensor([1, float("nan")]), "worse": torch.tensor([float("inf"), 0.0]), "dead": torch.zeros(2),
        "tiny": torch.tensor([1e-40])})
    assert uckpt("stats", path).code == 0
    for what, names in {"nan": {"bad"}, "inf": {"worse"}, "nan,inf": {"bad", "worse"}, "denormal": {"tiny"}, "zero": {"worse", "dead"},
                        "all-zero": {"dead"}}.items():
        report = answer("stats", "--fail-on", what, path, code=1)
        assert {f["path"] for f in report["failed"]} == {f"param/{name}" for name in names}, what
        text = uckpt("stats", "-q", "--fail-on", what, path)
        assert text.code == 1 and all(f"param/{name}" in text.error and f"param/{name}: " in text.text for name in names)
    assert uckpt("stats", "--fail-on", "nan,inf", "--drop", "bad", "--drop", "worse", path).code == 0
    assert uckpt("stats", "--fail-on", "nans", path).code == 2


@pytest.mark.parametrize("verb", ["stats", "diff"])
def test_the_same_answer_of_any_number_of_threads(tmp_path, verb):
    random = np.random.default_rng(5)
    tensors = {f"t{i}": torch.from_numpy(random.standard_normal((n, 1000)).astype(np.float32)) for i, n in enumerate((1, 700, 3001))}
    a = save(str(tmp_path / "a.safetensors"), tensors)
    b = save(str(tmp_path / "b.safetensors"), {name: t + 1e-3 * (t > 1) for name, t in tensors.items()})
    args = [a] if verb == "stats" else [a, b]
    answers = {tool.run(verb, *flags, "--json", "-j", j, "--max-mem", mem, *args).out
               for j in (1, 2, 3) for mem in ("8M", "1G") for flags in ([], ["--drop", "none"])}
    assert len(answers) == 1 and len(answers.pop()) > 100


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """200 MB in one tensor, and again by columns over two ranks."""
    folder = tmp_path_factory.mktemp("large")
    t = torch.from_numpy(np.random.default_rng(6).standard_normal((5000, 10000), dtype=np.float32))
    a = save(str(folder / "a.safetensors"), {"w": t})
    t[4321, 1234] += 2
    return a, save(str(folder / "b.pt"), {"w": t.t().contiguous().t()}), t


@pytest.mark.parametrize("verb", ["stats", "diff"])
def test_memory_is_bounded(large, verb):
    a, b, t = large
    args = [verb, "--json", "--max-mem", "64M", *([a] if verb == "stats" else [a, b])]
    if not tool.is_sanitized():
        code, _, anonymous = tool.peak_memory([tool.binary(), *args])
        assert code == (1 if verb == "diff" else 0) and anonymous < 64
    if verb == "diff":
        pair, = answer(*args[:1], *args[2:], code=1)["different"]
        assert pair["different"] == 1 and pair["max_abs_at"]["at"] == [4321, 1234] and pair["max_abs"] == pytest.approx(2, rel=1e-6)
    else:
        w, = answer(*args[:1], *args[2:])["tensors"]
        x = t.numpy().astype(np.float64)
        x[4321, 1234] -= 2
        assert w["mean"] == pytest.approx(x.mean(), rel=1e-6) and w["norm"] == pytest.approx(np.linalg.norm(x), rel=1e-9)


def test_a_damaged_byte(tmp_path):
    """stats checks the checksums of all that it reads; to diff the byte is a difference."""
    path = save(str(tmp_path / "a.pt"), {"w": torch.arange(3000, dtype=torch.float32), "v": torch.ones(5)})
    data = bytearray(open(path, "rb").read())
    at = data.index(np.float32(1234).tobytes() + np.float32(1235).tobytes())
    data[at + 3] ^= 0x80
    bad = str(tmp_path / "b.pt")
    with open(bad, "wb") as file:
        file.write(data)
    result = uckpt("stats", bad)
    assert result.code == 1 and "expected checksum" in result.error
    pair, = answer("diff", path, bad, code=1)["different"]
    assert pair["different"] == 1 and pair["max_abs_at"] == {"at": [1234], "a": 1234, "b": -1234}


def test_further_names_are_compared_and_told(tmp_path):
    w = torch.arange(6.0)
    tied = save(str(tmp_path / "a.pt"), {"emb": w, "head": w})
    apart = save(str(tmp_path / "b.pt"), {"emb": w.clone(), "head": w.clone() + torch.tensor([0, 0, 3, 0, 0, 0.])})
    lone = save(str(tmp_path / "c.pt"), {"emb": w})
    for a, b in ((tied, apart), (apart, tied)):
        report = answer("diff", a, b, code=1)
        assert [p["path"] for p in report["different"]] == ["param/head"] and report["equal"] == 1
        assert report["different"][0]["max_abs_at"]["at"] == [2]
    assert answer("diff", tied, tied)["equal"] == 2
    missing, = answer("diff", tied, lone, code=1)["missing"]
    assert (missing["path"], missing["tied_to"]) == ("param/head", "param/emb")
    assert [t.get("alias_of") for t in answer("stats", tied)["tensors"]] == [None, "param/emb"]


def test_rules_of_either_side(forms, tmp_path):
    """A's rules are B's where B is cut; --as renames A alone, --as-b B alone."""
    hf = convert(forms["hdf5"], str(tmp_path / "hf"), "--to", "safetensors", "--as", "hf")
    spec = ["--spec", "megatron/llama", "--set", "vocab=128"]
    states = ["--states", "fp32"]
    assert answer("diff", *spec, *states, forms["megatron-tp2"], forms["hdf5"])["compared"] == 27  # B is whole
    assert answer("diff", *spec, *states, os.path.join(LLAMA, "legacy"), forms["megatron-tp2"])["compared"] == 27
    renamed = answer("diff", "--as", "hf", *states, forms["megatron-tp2"], hf)
    assert renamed["equal"] == renamed["compared"] == 39
    back = answer("diff", "--as-b", "hf", hf, forms["megatron-tp2"], code=1)
    assert back["compared"] == back["equal"] == 39 and not back["missing"]
    assert {p["path_b"].split("/")[0] for p in back["extra"]} == {"exp_avg", "exp_avg_sq", "step", "other"}
    plain = answer("diff", *states, forms["hdf5"], hf, code=1)
    assert plain["compared"] == 0 and len(plain["missing"]) == 27
