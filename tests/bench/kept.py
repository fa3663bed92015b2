"""What is made once and kept for the next run."""
import os
import shutil
import tempfile


def kept(path, fill):
    """`path`; where it is not there, what fill(another path) leaves, whole or not at all."""
    if not os.path.exists(path):
        making = tempfile.mkdtemp(prefix="making-", dir=os.path.dirname(path))
        try:
            fill(os.path.join(making, os.path.basename(path)))
            os.rename(os.path.join(making, os.path.basename(path)), path)
        finally:
            shutil.rmtree(making)
    return path


def rounded(size, step):
    """The multiple of `step` that is nearest to `size`, at least one."""
    return max(1, round(size / step)) * step
