"""Conversions that are killed, interrupted, or run out of room; and how much memory they take."""
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_cleanly(number, large, out):
    process = start(large, out)
    wait_until_writing(process, os.path.dirname(out))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    assert process.returncode == 3, err
    assert err.decode().startswith("uckpt: ") and not os.path.exists(out)


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
