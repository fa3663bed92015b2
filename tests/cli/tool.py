"""Runs the uckpt binary as a black box: output, exit code, time, memory, what it left behind. Standard library only."""
import ast
import concurrent.futures
import dataclasses
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
DATA = os.path.join(TESTS, "data")
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer")


def binary():
    """UCKPT names the binary under test; the release build is the default."""
    path = os.environ.get("UCKPT") or os.path.join(ROOT, "build", "release", "uckpt")
    if not os.access(path, os.X_OK):
        sys.exit(f"no binary at {path}: build it, or set UCKPT")
    return os.path.abspath(path)


@dataclasses.dataclass
class Result:
    args: list
    code: int            # negative: died by that signal
    out: bytes
    err: bytes
    seconds: float
    rss_mb: float        # peak resident memory
    timed_out: bool = False

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def error(self):
        return self.err.decode("utf-8", "replace")

    def problems(self):
        """What is wrong with any run, whatever was asked of it."""
        found = []
        if self.timed_out:
            found.append(f"still running after {self.seconds:.0f} s")
        elif self.code < 0:
            found.append(f"died by {signal.Signals(-self.code).name}")
        elif self.code > 3:
            found.append(f"exit code {self.code} is none of 0, 1, 2, 3")
        if SANITIZER.search(self.error):
            found.append("a sanitizer complained: " + SANITIZER.search(self.error).group())
        if CONTROL.search(self.out) or CONTROL.search(self.err):
            found.append("raw control bytes in the output")
        return found

    def error_line_problems(self):
        """Of a run that failed: exactly one `uckpt: ` line of at most 400 characters, at most one `hint: ` line after it."""
        lines = [line for line in self.error.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("uckpt: ") and not line.startswith("uckpt: warning")]
        hints = [line for line in lines if line.startswith("hint: ")]
        others = [line for line in lines if not line.startswith(("uckpt: ", "hint: "))]
        found = []
        if len(errors) != 1:
            found.append(f"{len(errors)} error lines instead of one")
        if len(hints) > 1:
            found.append(f"{len(hints)} hint lines")
        if others:
            found.append(f"a stray line on stderr: {others[0]!r}")
        if errors and len(errors[0]) > 407:
            found.append(f"an error line of {len(errors[0])} characters")
        return found


def _read_all(pipe, into):
    into.append(pipe.read())


def run(*args, timeout=60, env=None, cwd=None, program=None, prefix=(), preexec=None):
    """Runs `uckpt ARGS…` and waits for it, killing it after `timeout` seconds."""
    command = [*prefix, program or binary(), *map(str, args)]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True, preexec_fn=preexec)
    out, err, late = [], [], []

    def stop():
        late.append(True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    readers = [threading.Thread(target=_read_all, args=pair) for pair in ((process.stdout, out), (process.stderr, err))]
    timer.start()
    for reader in readers:
        reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    for reader in readers:
        reader.join()
    process.stdout.close()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Result(list(map(str, args)), process.returncode, out[0], err[0], time.monotonic() - begun,
                  usage.ru_maxrss / 1024, bool(late))


def peak_memory(command):
    """Runs a command silently; (exit code, peak resident MiB, peak anonymous MiB), both sampled.

    The kernel's own peak would count what the child inherits from this process before it becomes the command.
    """
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    resident, anonymous = 0, 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        resident = max(resident, int(lines.get("VmHWM", "0").split()[0]))
        anonymous = max(anonymous, int(lines.get("RssAnon", "0").split()[0]))
        time.sleep(0.002)
    return process.returncode, resident / 1024, anonymous / 1024


def is_sanitized():
    """Whether the binary under test is a sanitizer build: its memory says nothing, and it is slower."""
    return subprocess.run(["grep", "-qaF", "__asan_init", binary()], check=False).returncode == 0


class Scratch:
    """A temporary folder that can say what was left in it."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="uckpt-test-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.path, name)

    def left(self):
        return sorted(os.listdir(self.path))


def read_npy(path):
    """(dtype text, shape, flat values) of a .npy file of plain little-endian numbers."""
    codes = {"<f4": "f", "<f8": "d", "<i8": "q", "<i4": "i", "<i2": "h", "|i1": "b", "|u1": "B", "<u2": "H", "<u4": "I",
             "<u8": "Q", "|b1": "?", "<f2": "e"}
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x93NUMPY":
        raise ValueError("no .npy magic")
    wide = data[6] > 1
    length = struct.unpack_from("<I" if wide else "<H", data, 8)[0]
    begin = 12 if wide else 10
    header = ast.literal_eval(data[begin:begin + length].decode("latin1"))
    body = data[begin + length:]
    code = codes[header["descr"]]
    count = len(body) // struct.calcsize(code)
    return header["descr"], header["shape"], list(struct.unpack(f"<{count}{code}", body))


class Tally:
    """Counts outcomes and prints what failed; ends with `N passed, N failed, N skipped` alone on a line."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def report(self, name, problems):
        if problems:
            self.failed += 1
            print(f"FAILED {name}: " + "; ".join(problems), flush=True)
        else:
            self.passed += 1

    def report_all(self, jobs):
        """Pairs of a name and a function that returns its problems: one a core at a time, told in order."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, found in [(name, pool.submit(job)) for name, job in jobs]:
                self.report(name, found.result())

    def skip(self, name, why):
        self.skipped += 1
        print(f"SKIPPED {name}: {why}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed else 0
