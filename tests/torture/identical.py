"""The same bytes whatever the number of threads, the locale, the time zone, the umask, the working folder and how paths are spelt."""
import functools
import locale
import os
import subprocess

import fixtures
import tool

OUTPUTS = {"h5": [], "safetensors": [], "pt": [], "dcp": ["--to", "dcp"], "dcp-hf": ["--to", "dcp-hf"],
           "deepspeed": ["--to", "deepspeed"], "universal": ["--to", "deepspeed-universal"], "megatron": ["--to", "megatron"],
           "core": ["--to", "megatron-core"]}
# Inputs and the outputs that they can become without more being said.
INPUTS = {
    "deepspeed/zero1-dp2/ckpt": ("h5", "safetensors", "pt", "dcp", "dcp-hf", "deepspeed", "universal"),
    "deepspeed/zero3-dp4-subgroups/ckpt": ("h5", "dcp", "deepspeed", "universal"),
    "deepspeed/moe-ep2-zero1-dp4/ckpt": ("h5", "deepspeed"),
    "torch/dcp_tp_fsdp2/ckpt": ("h5", "safetensors", "dcp"),
    "torch/megatron_llama_tp_pp/legacy": ("h5", "safetensors", "pt", "dcp", "megatron", "core"),
    "torch/megatron_moe_ep/torch_dist_fully_reshardable": ("h5", "megatron", "core"),
    "torch/hf_llama_gqa/model": ("h5", "safetensors", "pt", "dcp"),
    "torch/pt_objects/zip.pt": ("h5", "pt"),
}


def locales():
    """LC_ALL values: what every system has, what this one has, and a name that none has."""
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    wanted = [name for name in listed if name.lower().startswith(("tr_tr", "de_de", "ja_jp"))]
    return ["C", "C.UTF-8", "POSIX", "tr_TR.UTF-8", "xx_XX.NOWHERE", *wanted[:3]]


def variants(source, out):
    """(name, source, out, flags, options) of runs that must all make the same."""
    folder, leaf = os.path.split(source)
    for threads in (1, 2, 3, 8, 64):
        yield f"-j {threads}", source, out, ["-j", str(threads)], {}
    yield "--max-mem", source, out, ["--max-mem", "48M"], {}
    yield "--direct", source, out, ["--direct"], {}
    yield "--verify", source, out, ["--verify"], {}
    for name in locales():
        yield f"LC_ALL={name}", source, out, [], {"env": {"LC_ALL": name, "LANG": name}}
    for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns", "nonsense"):
        yield f"TZ={zone}", source, out, [], {"env": {"TZ": zone}}
    for mask in (0o000, 0o077, 0o277):
        yield f"umask {mask:03o}", source, out, [], {"preexec": functools.partial(os.umask, mask)}
    yield "relative", leaf, out, [], {"cwd": folder}
    yield "dot", "./" + leaf + ("/" if os.path.isdir(source) else ""), out, [], {"cwd": folder}
    yield "relative output", source, os.path.basename(out), [], {"cwd": os.path.dirname(out)}
    yield "stdin closed", source, out, [], {"preexec": functools.partial(os.close, 0)}
    yield "poor environment", source, out, [], {"prefix": ["env", "-i"]}


def check(fixture, kind, flags, reference, variant):
    name, source, out, more, options = variant
    with tool.Scratch() as scratch:
        to = os.path.join(scratch.path, os.path.basename(out))
        if name == "relative output":
            options, out = {"cwd": scratch.path}, os.path.basename(out)
        else:
            out = to
        result = tool.run("convert", "-q", "--no-sync", *flags, *more, source, out, **options)
        problems = result.problems()
        if result.code != 0:
            return problems + [f"exit {result.code}: {result.error.strip()[:200]}"]
        problems += fixtures.same_tree(to, reference)
        if scratch.left() != [os.path.basename(out)]:
            problems.append(f"left: {scratch.left()}")
        return problems


def run(tally, options):
    locale.setlocale(locale.LC_ALL, "C")
    jobs = []
    inputs = INPUTS
    if options.long:
        inputs = {**{fixture.name: ("h5",) for fixture in fixtures.shipped()}, **INPUTS}
    for number, (source, kinds) in enumerate(inputs.items()):
        fixture = fixtures.named(source)
        for kind in kinds:
            folder = fixtures.WORK.file(f"identical-{number}-{kind}")
            os.mkdir(folder)
            reference = os.path.join(folder, f"out.{kind}")   # torch writes the file's name into it
            made = tool.run("convert", *fixtures.QUIET, *OUTPUTS[kind], fixture.path, reference)
            if made.code != 0:
                tally.report(f"identical {source} {kind}", [f"exit {made.code}: {made.error.strip()[:200]}"])
                continue
            every = list(variants(fixture.path, fixtures.WORK.file(f"out.{kind}")))
            # The short form tries all of it on HDF5 and on the first input, and some on the others.
            if not options.long and number > 0 and kind != "h5":
                every = every[2:5:2] + every[number % 5 + 7::5]
            jobs += [(f"identical {source} {kind} {variant[0]}",
                      functools.partial(check, fixture, kind, OUTPUTS[kind], reference, variant)) for variant in every]
    tally.report_all(jobs)
