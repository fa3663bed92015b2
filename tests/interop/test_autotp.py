"""Tensor parallel checkpoints that DeepSpeed's AutoTP writes right now, against plain PyTorch."""
import os
import sys

import numpy as np
import pytest

import autotp
from common import Consolidated, convert, expected_tensors, tool


@pytest.mark.parametrize("name", autotp.KINDS)
def test_autotp(name, out, tmp_path):
    folder = str(tmp_path / name)
    made = tool.run(autotp.__file__, folder, name, program=sys.executable, timeout=200)
    assert made.code == 0, made.error[-4000:]
    convert(os.path.join(folder, "ckpt"), out)
    with Consolidated(out) as file:
        for path, expected in expected_tensors(os.path.join(folder, "expected.safetensors")).items():
            found = file.dataset(*path.split("/", 1))[()]
            if path.startswith("fp32/"):
                assert np.array_equal(found, expected.numpy()), path
            else:   # another order of summation
                np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=2e-6, err_msg=path)
