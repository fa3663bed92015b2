"""A torch.save file whose every tensor is a transposed view, as `w.t()` leaves it."""
import mmap
import os
import tempfile

import torch

from kept import kept

ROWS, COLUMNS = 4096, 1024   # of a stored weight in fp32


def large_views(cache, gigabytes):
    """A file of about that size; made on first use. The storages lie in a mapped scratch file, not in memory."""
    size = ROWS * COLUMNS * 4
    count = max(1, round(gigabytes * 1e9 / size))

    def fill(path):
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as scratch:
            for i in range(count):
                torch.manual_seed(i)
                scratch.write(torch.randn(ROWS, COLUMNS).numpy().data)
            scratch.flush()
            mapped = mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_COPY)
            weights = (torch.frombuffer(mapped, dtype=torch.float32, count=ROWS * COLUMNS, offset=i * size)
                       for i in range(count))
            torch.save({f"layers.{i}.weight": weight.view(ROWS, COLUMNS).t() for i, weight in enumerate(weights)}, path)
    return kept(os.path.join(cache, f"views-{gigabytes:g}GB.pt"), fill)
