"""Conversions that come to an end: killed before any write, out of room, out of descriptors, before a closed door, on an
input that changes; and what is no place for an output. Part of the suite `faults`."""
import functools
import json
import os
import resource
import shutil
import socket
import stat
import subprocess

import fixtures
import shim
import tool


def kill_and_redo(case, n):
    """SIGKILL before the n-th call that writes, then the same command: the undisturbed output, nothing left."""
    with tool.Scratch() as scratch:
        out = scratch.file("out." + case.kind)
        killed = shim.run(f"write-side:{n}:kill", *case.args(case.fixture.path, out))
        if killed.code not in (0, -9):
            return [f"exit {killed.code} of the killed run: {killed.error.strip()[:200]}"]
        problems = []
        if os.path.exists(out):   # it had its name already: then it is whole
            problems += [f"after the kill {problem}" for problem in fixtures.same_tree(out, case.reference)]
        again = tool.run(*case.args(case.fixture.path, out))
        was_done = not problems and os.path.exists(out) and again.code == 2 and "exists already" in again.error
        if again.code != 0 and not was_done:
            return problems + again.problems() + [f"exit {again.code} of the second run: {again.error.strip()[:200]}"]
        problems += fixtures.same_tree(out, case.reference)
        if scratch.left() != [os.path.basename(out)]:
            problems.append(f"left: {scratch.left()}")
        return problems


def kills(case, options):
    count = case.count("write-side")[0]
    step = 1 if options.long or case.kind in ("h5", "pt") else max(1, count // 40)
    for n in [*range(1, count + 1, step), count, count + 1]:
        yield f"kill before write-side call {n}", functools.partial(kill_and_redo, case, n)


def fault(case, text, codes, **more):
    import faults   # both are one suite  pylint: disable=import-outside-toplevel
    return functools.partial(faults.try_fault, case, text, codes, **more)


def full_disks(case, options):
    """The disk ends at a part of what is needed, on file systems with and without reservation."""
    need = case.count("write-side")[2]
    for percent in (1, 10, 25, 50, 75, 90, 99):
        room = need * percent // 100
        for name, more in (("", ""), (" without fallocate", "fallocate:0:fail:EOPNOTSUPP;")):
            yield (f"disk full at {percent} %{name}",
                   fault(case, f"{more}write-side:0:nospace-after:{room}", (2, 3), force=percent % 2 == 0 and case.kind != "dcp"))
    yield "a disk just large enough", fault(case, f"write-side:0:nospace-after:{need}", (0,), must_succeed=True)


def limited(case, files):
    """RLIMIT_NOFILE: it works with less, or says so."""
    with tool.Scratch() as scratch:
        out = scratch.file("out." + case.kind)
        result = tool.run(*case.args(case.fixture.path, out),
                          preexec=functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files)))
        if result.code == 0:
            return result.problems() + fixtures.same_tree(out, case.reference)
        return fixtures.refusal_problems(result, (2,), scratch.path)


def few_descriptors(case, options):
    for files in (4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32):
        yield f"{files} descriptors", functools.partial(limited, case, files)


def with_input(case, action, n):
    """The input changes at its n-th read: 1 or 2 and a line that names a file; or it was read in time."""
    with tool.Scratch() as scratch:
        source = case.fixture.copy(scratch.file("in"))
        before, out = scratch.left(), scratch.file("out." + case.kind)
        result = shim.run(f"reads:{n}:{action}", *case.args(source, out), under=source)
        if result.code == 0:
            # Read before the change, or the byte is under no checksum: the values may be the new ones, nothing else.
            return result.problems() + (["no output"] if not os.path.exists(out) else [])
        problems = fixtures.refusal_problems(result, (1, 2), scratch.path, before)
        if not any(os.path.basename(name) in result.error for name in [source, *case.fixture.files()] if name):
            problems.append(f"names no file: {result.error.strip()[:200]}")
        return problems


def changing_inputs(case, options):
    count = case.count("reads", under=case.fixture.path)[0]
    for n in range(1, count + 1, max(1, count // (count if options.long else 12))):
        for action in ("cut:0", "cut:100", "spoil"):
            yield f"{action} at read {n}", functools.partial(with_input, case, action, n)


MAKERS = (kills, full_disks, few_descriptors, changing_inputs)


# --- What needs no case ----------------------------------------------------------------------------------------------

def full_stdout(verb, source):
    with open("/dev/full", "wb") as full:
        args = [tool.binary(), *verb, source] + (["never.h5"] if verb[0] == "plan" else [])
        done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False)
    if "--json" in verb:   # then the error is a JSON object
        return [] if done.returncode == 2 and json.loads(done.stderr)["error"]["exit"] == 2 else [f"exit {done.returncode}"]
    return fixtures.refusal_problems(tool.Result(args, done.returncode, b"", done.stderr, 0, 0), (2,))


def no_output_here(make, flags):
    """A place where no output can be: 2, one line; `make` prepares the folder and gives the path."""
    with tool.Scratch() as scratch:
        path = make(scratch)
        before = scratch.left()
        kind = stat.S_IFMT(os.lstat(path).st_mode) if os.path.lexists(path) else None
        result = tool.run("convert", "-q", *flags, fixtures.named("torch/pt_views/zip.pt").path, path)
        problems = fixtures.refusal_problems(result, (2,), scratch.path, before)
        if kind != (stat.S_IFMT(os.lstat(path).st_mode) if os.path.lexists(path) else None):
            problems.append("what was there is something else now")
        return problems


# Devices of our own: a fault here would replace those of the machine.
def device(number, scratch):
    path = scratch.file("device")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, number))
    return path


def pipe(scratch):
    os.mkfifo(scratch.file("pipe"))
    return scratch.file("pipe")


def listener(scratch):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(scratch.file("socket"))
    return scratch.file("socket")


def closed_folder(scratch):
    folder = scratch.file("closed")
    os.mkdir(folder, 0o500)
    return os.path.join(folder, "out.h5")


def missing_folder(scratch):
    return scratch.file("nowhere/out.h5")


def file_as_folder(scratch):
    with open(scratch.file("file"), "wb") as file:
        file.write(b"x")
    return scratch.file("file/out.h5")


def others(options):
    source = fixtures.named("deepspeed/zero1-dp2/ckpt").path
    jobs = [(f"faults stdout full: {' '.join(verb)}", functools.partial(full_stdout, verb, source))
            for verb in (["inspect"], ["inspect", "--json"], ["ls"], ["ls", "--json"], ["plan"], ["plan", "--json"])]
    special = {"a pipe": pipe, "a socket": listener}
    if os.geteuid() == 0:
        special |= {"a null device": functools.partial(device, 3), "a full device": functools.partial(device, 7)}
    else:   # whoever may not write into /dev cannot harm it
        special |= {"/dev/null": lambda _: "/dev/null", "/dev/full": lambda _: "/dev/full"}
    for name, make in special.items():
        for flags in (["--to", "hdf5"], ["--to", "hdf5", "-f"], ["--to", "dcp"], ["--to", "dcp", "-f"]):
            jobs.append((f"faults onto {name} {' '.join(flags)}", functools.partial(no_output_here, make, flags)))
    places = {"missing folder": missing_folder, "a file as folder": file_as_folder}
    if os.geteuid():   # root may write anywhere
        places["closed folder"] = closed_folder
    for name, make in places.items():
        jobs.append((f"faults {name}", functools.partial(no_output_here, make, ["--to", "hdf5"])))
    if shutil.which("chattr") and not os.geteuid():
        jobs.append(("faults immutable folder", immutable_folder))
    return jobs


def immutable_folder():
    """As root, permission is refused only by the file system."""
    with tool.Scratch() as scratch:
        folder = scratch.file("fixed")
        os.mkdir(folder)
        if subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
            return []   # this file system knows no such thing
        try:
            result = tool.run("convert", "-q", fixtures.named("torch/pt_views/zip.pt").path, os.path.join(folder, "out.h5"))
            return fixtures.refusal_problems(result, (2,), folder)
        finally:
            subprocess.run(["chattr", "-i", folder], check=True)
