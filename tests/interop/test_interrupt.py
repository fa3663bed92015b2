"""Conversions that are killed, interrupted, or run out of room; and how much memory they take."""
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from common import Consolidated, convert, refused, tool, uckpt
from large import large_checkpoint, size_of


@pytest.fixture(scope="session")
def large():
    return large_checkpoint(os.path.join(tool.ROOT, "build", "bench"), 2, 1)


def start(source, out, *flags):
    return subprocess.Popen([tool.binary(), "convert", "-q", source, out, *flags], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def wait_until_writing(process, folder):
    """Until the temporary file is there: copying has begun or is about to."""
    for _ in range(2000):
        if os.listdir(folder) or process.poll() is not None:
            return
        time.sleep(0.001)


@pytest.mark.parametrize("seed", range(5))
def test_kill_leaves_nothing_at_the_output(seed, large, out):
    folder = os.path.dirname(out)
    process = start(large, out)
    wait_until_writing(process, folder)
    time.sleep(random.Random(seed).uniform(0.0, 0.15))
    process.kill()
    process.communicate()
    if process.returncode == 0:
        pytest.skip("it was faster than the kill")
    assert not os.path.exists(out)


def test_leftovers_do_not_disturb_the_next_run(large, out):
    folder = os.path.dirname(out)
    process = start(large, out)
    wait_until_writing(process, folder)
    process.kill()
    process.communicate()
    assert process.returncode != 0 and not os.path.exists(out)
    convert(large, out)
    with Consolidated(out) as file:
        assert file.dataset("fp32", "layers.0.weight").shape == (1024, 1024)


def journal_of(out):
    return os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.uckpt-journal")


def wait_until_journaled(process, out):
    """Until finished tasks stand in the journal, behind who writes the output and what is run. False: it ended before."""
    begun = 512
    while process.poll() is None:
        size = os.path.getsize(journal_of(out)) if os.path.exists(journal_of(out)) else 0
        if begun == 512:
            begun = max(begun, size)
        elif size > begun:
            return True
        time.sleep(0.001)
    return False


@pytest.fixture(scope="session")
def undisturbed(large, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("undisturbed") / "whole.h5")
    convert(large, out)
    return out


def interrupted(large, out, number, *flags):
    """Interrupts a conversion by a signal when part of it is in the journal, and returns its exit code and stderr."""
    process = start(large, out, "-j", "1", *flags)
    assert wait_until_journaled(process, out), "it was faster than the signal"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert not os.path.exists(out)
    return process.returncode, err.decode()


def goes_on(large, out, undisturbed, *flags):
    """The same command again; how many bytes it found done."""
    result = uckpt("convert", "--json", "--progress", "none", large, out, "-j", "1", *flags)
    assert result.code == 0, result.error
    assert filecmp.cmp(out, undisturbed, shallow=False)
    assert os.listdir(os.path.dirname(out)) == [os.path.basename(out)]
    return json.loads(result.text)["continued"], result.error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_and_the_same_command_goes_on(number, large, out, undisturbed):
    code, err = interrupted(large, out, number)
    assert code == 3 and err.startswith("uckpt: ") and "goes on" in err
    assert goes_on(large, out, undisturbed)[0] > 64 << 20


def test_kill_redoes_little(large, out, undisturbed):
    code, _ = interrupted(large, out, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert goes_on(large, out, undisturbed)[0] >= 64 << 20


def test_time_is_up(large, out, undisturbed):
    process = start(large, out, "-j", "1", "--max-duration", "4s")
    begun = time.monotonic()
    assert wait_until_journaled(process, out)
    process.send_signal(signal.SIGSTOP)  # until its time is up, however fast it is
    time.sleep(max(0, begun + 4.1 - time.monotonic()))
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 3
    assert goes_on(large, out, undisturbed, "--max-duration", "5m")[0] > 0


def test_restart_begins_anew(large, out, undisturbed):
    interrupted(large, out, signal.SIGINT)
    assert goes_on(large, out, undisturbed, "--restart")[0] == 0


def test_changed_input_is_said(large, out, undisturbed, tmp_path):
    copy = tmp_path / "input"
    subprocess.run(["cp", "-r", large, copy], check=True)
    interrupted(str(copy), out, signal.SIGINT)
    changed = next(copy.rglob("*_optim_states.pt"))
    os.utime(changed)
    continued, err = goes_on(str(copy), out, undisturbed)
    assert continued == 0 and f"{changed.name} was changed since" in err


def test_other_flags_are_said(large, out):
    interrupted(large, out, signal.SIGINT)
    result = uckpt("convert", large, out, "--states", "fp32")
    assert result.code == 0 and "other flags" in result.error


def test_the_second_says_who_holds_it(large, out, undisturbed):
    process = start(large, out, "-j", "1")
    assert wait_until_journaled(process, out)
    process.send_signal(signal.SIGSTOP)
    message = refused(large, out, code=2)
    process.send_signal(signal.SIGCONT)
    assert f"process {process.pid} on " in message
    process.communicate(timeout=60)
    assert process.returncode == 0 and filecmp.cmp(out, undisturbed, shallow=False)


def test_a_claim_of_another_host(large, out):
    """Where the file system has no locks, what the claim says decides; with them the dead hold nothing."""
    with open(journal_of(out), "wb") as file:
        file.write(b"uckpt journal 1\npid 1\nhost elsewhere\nboot 0\n".ljust(512, b"\n"))
    convert(large, out)
    assert os.listdir(os.path.dirname(out)) == [os.path.basename(out)]


def test_existing_output_is_untouched(large, out):
    with open(out, "w") as file:
        file.write("precious")
    result = uckpt("convert", "-q", large, out)
    assert result.code == 2 and open(out).read() == "precious"


def test_failed_overwrite_keeps_the_old_file(out):
    with open(out, "w") as file:
        file.write("precious")
    bad = os.path.join(tool.DATA, "hostile/zip/crc_data.pt")
    assert uckpt("convert", "-q", "-f", bad, out).code == 1
    assert open(out).read() == "precious"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB, where one may mount."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mount)],
                                      capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_disk_full(large, small_disk):
    message = refused(large, str(small_disk / "out.h5"), code=2)
    assert "space" in message.lower()


def test_folder_without_permission(large, tmp_path):
    if not os.geteuid():
        pytest.skip("root may write anywhere")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    refused(large, str(folder / "out.h5"), code=2)


def test_output_inside_the_input_folder(large, tmp_path):
    """Writing beside the rank files must not make them part of the checkpoint."""
    source = tmp_path / "ckpt"
    shutil.copytree(os.path.join(tool.DATA, "deepspeed/zero1-dp2/ckpt"), source)
    convert(str(source), str(source / "global_step4" / "out.h5"))
    convert(str(source), str(tmp_path / "again.h5"))


@pytest.mark.parametrize("flags", [[], ["-j", "8"], ["--max-mem", "64M"]])
def test_memory_does_not_grow_with_the_input(flags, large, out):
    assert size_of(large) > 0.9e9
    code, _, anonymous = tool.peak_memory([tool.binary(), "convert", "-q", large, out, *flags])
    assert code == 0
    assert anonymous <= 256, f"{anonymous:.0f} MiB of anonymous memory"
