import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ["DS_ACCELERATOR"] = "cpu"


@pytest.fixture
def out(tmp_path):
    """Where a conversion may write: a path in a folder of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    return str(folder / "out.h5")
