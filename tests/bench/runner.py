"""Runs commands in turns: their time, warm and cold, and the memory of their processes."""
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

LONGEST_S = 1200   # one command


class Failed(Exception):
    """A command that did not do what it was asked."""


class Place:
    """A folder beside the inputs, in which the commands write one after another; what they wrote is thrown away.

    Its files are emptied at once, and removed only at the end: ext4 passes over each inode that was freed in the last
    minutes, so a command that makes many files would pay for those of the command before it.
    """

    def __init__(self, cache):
        self.folder = tempfile.mkdtemp(prefix="out-", dir=cache)
        self.out, self.runs = os.path.join(self.folder, "out"), 0
        os.makedirs(self.out)

    def clean(self):
        for at, _, names in os.walk(self.out):
            for name in names:
                if not os.path.islink(os.path.join(at, name)):
                    os.truncate(os.path.join(at, name), 0)
        os.rename(self.out, os.path.join(self.folder, str(self.runs)))
        self.runs += 1
        os.makedirs(self.out)

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def warm_memory(gib):
    """Touches and frees memory: the first touch of fresh pages can cost more than any copy."""
    block = bytearray(int(gib * (1 << 30)))
    del block


def read_once(files):
    """Brings files into the page cache."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def drop(files):
    """Takes files out of the page cache."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def quiet(command):
    """Runs a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Failed(f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()[-600:]}")


def _family_of(pid):
    """A process and all that came of it."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    found += map(int, file.read().split())
        except OSError:   # over already, or a kernel that does not tell
            pass
    return found


def _memory_of(pid):
    """(resident, anonymous) KiB; pages that processes share count once among them."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            sizes = dict(line.split(":", 1) for line in file.readlines()[1:])
        return int(sizes["Pss"].split()[0]), int(sizes["Pss_Anon"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0, 0


class Sampler(threading.Thread):
    """The most memory that a process and its children had at once."""

    def __init__(self, pid, every):
        super().__init__(daemon=True)
        self.pid, self.every, self.peaks, self.over = pid, every, (0, 0), threading.Event()

    def run(self):
        while not self.over.is_set():
            now = [_memory_of(pid) for pid in _family_of(self.pid)]
            self.peaks = tuple(max(peak, sum(sizes)) for peak, sizes in zip(self.peaks, zip(*now)))
            self.over.wait(self.every)

    def mib(self):
        self.over.set()
        self.join()
        return [round(peak / 1024, 1) for peak in self.peaks]


def run(command, place, sample_every=None):
    """((seconds, seconds of all processors), [resident, anonymous] MiB at most or None); what it wrote is removed untimed."""
    with tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        sampler = Sampler(process.pid, sample_every) if sample_every else None
        timer = threading.Timer(LONGEST_S, os.killpg, (process.pid, signal.SIGKILL))
        try:
            timer.start()
            if sampler:
                sampler.start()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun
            code = process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:   # whatever ends the benchmark ends the command, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            timer.cancel()
            place.clean()
        if code:
            errors.seek(0)
            why = errors.read().decode(errors="replace").strip()[-600:]
            raise Failed(f"stopped after {LONGEST_S} s" if seconds > LONGEST_S else f"exit {code}: {why}")
    return (seconds, usage.ru_utime + usage.ru_stime), sampler.mib() if sampler else None


class Measured:
    """What is known of one command."""

    def __init__(self, command, slow=False):
        self.command, self.slow, self.error, self.peak = command, slow, None, None
        self.seconds, self.cpu = {"warm": [], "cold": []}, {"warm": [], "cold": []}

    def time(self, place, heat):
        """One more run; a command that failed once is not tried again."""
        if self.error:
            return
        try:
            (seconds, cpu), peak = run(self.command, place, 0.2 if self.slow else None)
        except Failed as failed:
            self.error = str(failed)
            return
        self.seconds[heat].append(seconds)
        self.cpu[heat].append(cpu)
        if peak:
            self.peak = [max(pair) for pair in zip(peak, self.peak or peak)]

    def weigh(self, place):
        if self.error or self.peak:
            return
        try:
            self.peak = run(self.command, place, 0.002)[1]
        except Failed as failed:
            self.error = str(failed)


def alternate(table, files, place, heat, rounds, gib):
    """Times each command once a round: the order rotates so that none always follows the same one, slow ones come last
    and in the first rounds only."""
    quick = [name for name, measured in table.items() if not measured.slow]
    slow = [name for name in table if name not in quick]
    for turn in range(rounds):
        first = turn % len(quick) if quick else 0
        warm_memory(gib)
        if heat == "warm":
            read_once(files)
        for name in quick[first:] + quick[:first] + (slow if turn < (2 if heat == "warm" else 1) else []):
            if heat == "cold":
                drop(files)
            table[name].time(place, heat)
