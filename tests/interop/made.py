"""Runs scripts/make-deepspeed-checkpoints in a process group of its own, that ends in time."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import tool  # noqa: E402

SCRIPT = os.path.join(tool.ROOT, "scripts", "make-deepspeed-checkpoints")


def make_checkpoints(folder, *names, timeout=600):
    """FOLDER/<name> for each name, or for all kinds."""
    run = tool.run(SCRIPT, folder, *names, program=sys.executable, timeout=timeout)
    assert run.code == 0, f"exit {run.code} after {run.seconds:.0f} s\n{run.text[-2000:]}{run.error[-4000:]}"
