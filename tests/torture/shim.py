"""Builds fault_shim.c and runs uckpt under it."""
import os
import subprocess
import tempfile

import tool

_library = None


def library():
    """The shared library, built into build/ on first use; None where there is no C compiler."""
    global _library
    if _library is None:
        folder = os.path.join(tool.ROOT, "build", "torture")
        os.makedirs(folder, exist_ok=True)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fault_shim.c")
        # Under another name first: a test run beside this one may be using the old one.
        handle, made = tempfile.mkstemp(dir=folder)
        os.close(handle)
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, source, "-ldl", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            os.unlink(made)
            raise RuntimeError(f"fault_shim.c does not build: {done.stderr}")
        _library = os.path.join(folder, "fault_shim.so")
        os.rename(made, _library)
    return _library


def run(fault, *args, under=None, log=None, env=None, **options):
    """uckpt ARGS with UCKPT_FAULT=fault; `under` limits it to the files below a path."""
    settings = {**(env or {}), "LD_PRELOAD": library(), "UCKPT_FAULT": fault}
    if under:
        settings["UCKPT_FAULT_UNDER"] = under
    if log:
        settings["UCKPT_FAULT_LOG"] = log
    return tool.run(*args, env=settings, **options)


def count(calls, *args, under=None, **options):
    """(calls, bytes written, [(name, path)], result) of an undisturbed run."""
    with tool.Scratch() as scratch:
        log = scratch.file("log")
        result = run(f"{calls}:0:count", *args, under=under, log=log, **options)
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.split(" ", 2) for line in file.read().splitlines()]
    made = [(line[1], line[2]) for line in lines if line[0] == "call"]
    last = " ".join(lines[-1]).split() if lines else ["calls", "0", "bytes", "0"]
    return int(last[1]), int(last[3]), made, result
