"""The fixtures of tests/data that convert, what undisturbed conversions make of them, and which bytes a checksum covers."""
import dataclasses
import glob
import io
import json
import os
import re
import shutil
import struct
import sys
import threading
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import tool  # noqa: E402  the black-box runner

# Directory in which everything of one run lies; made and removed by run.py.
WORK = tool.Scratch()
QUIET = ("-q", "--no-sync", "-j", "1")




@dataclasses.dataclass(frozen=True)
class Fixture:
    name: str        # torch/pt_views/zip.pt
    kind: str        # torch, safetensors, hdf5, dcp, megatron, deepspeed
    path: str        # what is given to uckpt
    expected: str    # expected.safetensors, or "" where there is none

    def is_folder(self):
        return os.path.isdir(self.path)

    def files(self):
        """Names below `path`; of a file just itself, as ""."""
        if not self.is_folder():
            return [""]
        return sorted(os.path.relpath(os.path.join(at, name), self.path)
                      for at, _, names in os.walk(self.path) for name in names)

    def copy(self, to):
        """A copy that may be damaged; gives its path."""
        if self.is_folder():
            shutil.copytree(self.path, to, copy_function=shutil.copyfile)
            return to
        os.mkdir(to)   # its name is kept: outputs hold it
        return shutil.copyfile(self.path, os.path.join(to, os.path.basename(self.path)))


def _plain(kind, pattern, keep=lambda path: True):
    for path in sorted(glob.glob(os.path.join(tool.DATA, pattern))):
        if keep(path):
            folder = os.path.dirname(path)
            expected = os.path.join(folder, "expected.safetensors")
            yield Fixture(os.path.relpath(path, tool.DATA), kind, path, expected if os.path.exists(expected) else "")


# Of these convert says why not; hostile_runner.py holds it to that.
_REFUSED = re.compile(r"pt_damaged|pt_sparse_quantized|deflated|ok_empty_header|README")


def shipped():
    """Every fixture that converts."""
    def converts(path):
        return not _REFUSED.search(path)
    return [*_plain("torch", "torch/pt_*/*.pt", converts), *_plain("safetensors", "torch/hf_*/model"),
            *_plain("safetensors", "torch/st_dtypes/model"), *_plain("safetensors", "torch/st_validation/files/ok_*", converts),
            *_plain("dcp", "torch/dcp_*/ckpt"), *_plain("megatron", "torch/megatron_*/legacy"),
            *_plain("megatron", "torch/megatron_*/torch_dist_*"), *_plain("deepspeed", "deepspeed/*/ckpt")]


def made():
    """HDF5 files, which tests/data has none of: ours of a checkpoint of each family."""
    found = []
    for source in ("deepspeed/zero1-dp2/ckpt", "torch/pt_dtypes/zip.pt"):
        fixture = named(source)
        found.append(Fixture("hdf5/" + source.split("/")[1], "hdf5", reference(fixture), fixture.expected))
    return found


def everything():
    return shipped() + made()


def named(name):
    return next(fixture for fixture in shipped() if fixture.name == name)


def convert(source, out, *flags, **options):
    return tool.run("convert", *QUIET, source, out, *flags, **options)


_references, _making = {}, threading.Lock()


def reference(fixture):
    """The path of the HDF5 file that an undisturbed conversion makes. Suites ask from many threads."""
    with _making:
        if fixture not in _references:
            out = WORK.file(f"reference-{len(_references)}.h5")
            result = convert(fixture.path, out)
            if result.code != 0:
                sys.exit(f"torture: {fixture.name} does not convert undisturbed: {result.error}")
            _references[fixture] = out
        return _references[fixture]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tree(path):
    """Everything below a path: name to bytes; of folders None."""
    if not os.path.isdir(path):
        return {"": read(path)}
    found = {}
    for at, folders, names in os.walk(path):
        for name in folders:
            found[os.path.relpath(os.path.join(at, name), path)] = None
        for name in names:
            found[os.path.relpath(os.path.join(at, name), path)] = read(os.path.join(at, name))
    return found


def same_tree(path, other):
    """Problems where two outputs are not byte for byte the same."""
    ours, theirs = tree(path), tree(other)
    if ours == theirs:
        return []
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name, 0) != theirs.get(name, 0))
    return ["the output differs in " + ", ".join(name or "its bytes" for name in differing[:3])]


def refusal_problems(result, codes, folder=None, before=()):
    """Of a run that has to fail: an allowed code, one line, nothing left in `folder` but what was there before."""
    found = result.problems()
    if result.code not in codes:
        found.append(f"exit {result.code}, expected {' or '.join(map(str, codes))}: {result.error.strip()[:300]}")
    if result.code > 0:
        found += result.error_line_problems()
    if folder and sorted(os.listdir(folder)) != sorted(before):
        found.append(f"left behind: {sorted(set(os.listdir(folder)) - set(before))}")
    return found


# --- truth ---------------------------------------------------------------------------------------------------------

def safetensors(path):
    """Name to (dtype, shape, bytes)."""
    data = read(path)
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + length])
    body = data[8 + length:]
    return {name: (entry["dtype"], entry["shape"], body[entry["data_offsets"][0]:entry["data_offsets"][1]])
            for name, entry in header.items() if name != "__metadata__"}


def places(fixture, key):
    """The paths in the consolidated file at which the tensor `key` of the truth may stand (tests/data/README.md)."""
    if fixture.name.startswith("deepspeed/") or fixture.name == "hdf5/zero1-dp2":
        state, name = key.split("/", 1)
        return [("param" if state == "frozen" else state) + "/" + name]
    for pattern, path in ((r"optim\.state\.(.+)\.([^.]+)", r"\2/\1"), (r"state\.(.+)\.([^.]+)", r"\2/\1"),
                          (r"optimizer\.fp32_param\.(.+)", r"fp32/\1"), (r"optimizer\.([^.]+)\.(.+)", r"\1/\2"),
                          (r"model\.(.+)", r"param/\1")):
        if fixture.kind in ("dcp", "megatron") and re.fullmatch(pattern, key):
            return [re.sub(pattern, path, key), re.sub(pattern, path.replace("param/", "fp32/"), key), "buffer/" +
                    re.sub(pattern, path, key).split("/", 1)[1], "param/" + key, "other/" + key]
    return ["param/" + key, "other/" + key, "buffer/" + key, "fp32/" + key]


def truth_problems(fixture):
    """The undisturbed conversion held against expected.safetensors, bit for bit."""
    if not fixture.expected:
        return []
    with open(fixture.expected[:-len("safetensors")] + "json", encoding="utf-8") as file:
        oracle = str(json.load(file).get("oracle"))
    if "full training" in oracle or "rounding" in oracle:
        return []   # the oracle's last bits are its own: tests/interop compares with the tolerance
    found, out = [], reference(fixture)
    with tool.Scratch() as scratch:
        npy = scratch.file("value.npy")
        for key, (dtype, _, expected) in safetensors(fixture.expected).items():
            if "#" in key:
                continue   # a complex tensor as its parts
            for place in places(fixture, key):
                if tool.run("extract", "--raw", "-f", out, place, "-o", npy).code == 0:
                    data = read(npy)
                    data = data[10 + struct.unpack_from("<H", data, 8)[0]:]
                    if dtype == "BF16" and place.startswith("fp32/"):
                        data = rounded(data)   # the model's weights are the masters rounded
                    if data != expected:
                        found.append(f"{place} ({dtype}) has other bytes than {key} of the truth")
                    break
            else:
                found.append(f"no {key} in the output")
    return found[:5]


def rounded(data):
    """float32 bytes as bfloat16 bytes, to the nearest, ties to even."""
    words = struct.unpack(f"<{len(data) // 4}I", data)
    return struct.pack(f"<{len(words)}H", *((word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in words))


# --- checksums -----------------------------------------------------------------------------------------------------

def zip_members(data):
    """(begin, end, is it read) of every stored member whose CRC the archive keeps; None if this is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError):
        return None
    found = []
    for info in infos:
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, info.header_offset + 26)
        begin = info.header_offset + 30 + name_bytes + extra_bytes
        if info.CRC or info.file_size == 0:
            is_read = info.filename.endswith(("/data.pkl", "/byteorder")) or "/data/" in info.filename
            found.append((begin, begin + info.file_size, is_read))
    return found


def covered_ranges(path):
    """The byte ranges of a file whose change a conversion must notice; None where the format has no checksums."""
    data = read(path)
    whole = zip_members(data) if data[:4] == b"PK\x03\x04" else None
    if whole is not None and not path.endswith(".distcp"):
        return whole
    if not path.endswith(".distcp"):
        return None
    # A row of archives, each of which ends with its end record without a comment.
    found, begin = [], 0
    for end in re.finditer(rb"PK\x05\x06", data):
        stop = end.start() + 22
        members = zip_members(data[begin:stop])
        if members is not None:
            found += [(begin + a, begin + b, is_read) for a, b, is_read in members]
            begin = stop
    return found if begin == len(data) else None
