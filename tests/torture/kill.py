"""SIGKILL at random moments of a conversion of a larger checkpoint, sometimes several in a row; then the same command again
makes the undisturbed output, and leaves nothing beside it.

What the last run had to do again is printed: bytes written by it, of those of an undisturbed run. Small outputs are made
anew; of large ones (--long) what was finished and synced is taken up. That little is redone: tests/interop/test_interrupt.py.
"""
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import time

import fixtures
import tool

OUTPUTS = {"h5": [], "dcp": ["--to", "dcp"], "pt": []}


def make_model(folder, files, megabytes):
    """A Hugging Face folder of that size, without torch: noise, so that swapped blocks show."""
    os.mkdir(folder)
    draw, weight_map, rows = random.Random(7), {}, 1024
    columns = megabytes * (1 << 20) // files // 4 // 2 // rows
    block = draw.randbytes(1 << 20)
    for number in range(files):
        name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        header, size = {}, rows * columns * 2
        for i in range(4):
            header[f"layers.{number}.w{i}"] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [i * size, (i + 1) * size]}
        weight_map |= dict.fromkeys(header, name)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            left = 4 * size
            while left > 0:
                start = draw.randrange(1 << 19)
                part = block[start:start + min(left, 1 << 19)]
                file.write(part)
                left -= len(part)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)


def written_by(process):
    """Bytes that a process had written, as the kernel counts them; 0 where it does not tell."""
    try:
        with open(f"/proc/{process.pid}/io", encoding="ascii") as file:
            return int(next(line.split()[1] for line in file if line.startswith("wchar")))
    except (OSError, StopIteration):
        return 0


def run_to_end(command):
    """(exit code, standard error, bytes written)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)   # its counters are there until it is waited for
    written = written_by(process)
    error = process.communicate()[1]
    return process.returncode, error, written


def kill_after(command, seconds):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode


class Subject:
    """One conversion: its undisturbed output and how long it takes."""

    def __init__(self, source, kind):
        self.source, self.kind = source, kind
        folder = fixtures.WORK.file(f"kill-{kind}")
        os.makedirs(folder, exist_ok=True)
        self.reference = os.path.join(folder, "out." + kind)
        begun = time.monotonic()
        code, error, self.written = run_to_end(self.command(self.reference))
        self.seconds = time.monotonic() - begun
        if code != 0:
            raise RuntimeError(f"undisturbed: exit {code}: {error}")

    def command(self, out):
        return [tool.binary(), "convert", "-q", *OUTPUTS[self.kind], self.source, out]


def one_round(subject, draw, again):
    """Kills, then a run to the end; `again` collects how much that one wrote."""
    with tool.Scratch() as scratch:
        out = scratch.file("out." + subject.kind)
        problems = []
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            if kill_after(subject.command(out), draw.uniform(0.005, subject.seconds * 1.05)) == 0:
                break
            if os.path.exists(out):
                problems += [f"after a kill {problem}" for problem in fixtures.same_tree(out, subject.reference)]
                break
        if scratch.left() != [os.path.basename(out)]:   # unfinished, or finished but for the tidying up
            code, error, written = run_to_end(subject.command(out))
            again.append(written / max(1, subject.written))
            if code != 0:
                return problems + [f"exit {code} of the last run: {error.strip()[:200]}"]
        problems += fixtures.same_tree(out, subject.reference)
        if scratch.left() != [os.path.basename(out)]:
            problems.append(f"left: {scratch.left()}")
        return problems


def run(tally, options):
    source = fixtures.WORK.file("large")
    make_model(source, 8, 400 if options.long else 48)
    draw = random.Random(options.seed)
    rounds = 300 if options.long else 50
    for kind in OUTPUTS:
        subject, again = Subject(source, kind), []
        share = rounds if options.long else {"h5": 25, "dcp": 15, "pt": 10}[kind]
        for turn in range(share):
            tally.report(f"kill {kind} {turn}", one_round(subject, draw, again))
        if again:
            print(f"kill: {kind}, {len(again)} last runs wrote {statistics.mean(again):.0%} of an undisturbed one's bytes on "
                  f"average, {min(again):.0%} at least")
