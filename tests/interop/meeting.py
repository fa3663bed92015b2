"""How the ranks of a test meet: over the loopback device and a file, so that neither a port nor the host's name matters."""
import os

import torch.distributed as dist

LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "lo"}


def file_in(folder):
    """It stays when the ranks have parted."""
    return os.path.join(os.path.abspath(folder), "meeting")


def place(folder):
    """The init_method of ranks that share a folder, in which none have met yet."""
    return f"file://{file_in(folder)}"


def join(rank, world, folder):
    os.environ.update(LOOPBACK, RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=place(folder), rank=rank, world_size=world)
