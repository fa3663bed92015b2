"""A small FSDP2 run on gloo CPU ranks: it trains, saves and loads with torch.distributed.checkpoint."""
import dataclasses
import os
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import meeting

WIDTH, ROWS, VOCABULARY = 10, 13, 37   # none of them a multiple of 4 ranks
RESULT = "result.pt"


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.up = torch.nn.Linear(WIDTH, ROWS)
        self.down = torch.nn.Linear(ROWS, WIDTH)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.randn(3))   # of four ranks one has nothing of it
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList([Block(), Block()])
        self.head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("steps_seen", torch.tensor(0))
        self.register_buffer("scale", torch.full((5,), 0.5))

    def forward(self, ids):
        self.steps_seen += 1
        x = self.embed(ids) * self.gain.sum() * self.scale[0]
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Named(torch.nn.Module):
    """Parameters and buffers of given names and shapes, and nothing that could run."""

    def __init__(self, params, buffers):
        super().__init__()
        for register, tensors in (("register_parameter", params), ("register_buffer", buffers)):
            for name, tensor in tensors.items():
                *path, last = name.split(".")
                module = self
                for part in path:
                    if part not in dict(module.named_children()):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                fresh = torch.zeros_like(tensor)
                getattr(module, register)(last, torch.nn.Parameter(fresh) if register == "register_parameter" else fresh)


@dataclasses.dataclass
class Job:
    world: int
    load: str = ""      # a checkpoint's folder; empty: begin anew
    save: str = ""
    steps: int = 0
    named: tuple = ()   # (params, buffers, names of each group) of a `Named` model; else it is a `Net`


def _start(job, mesh):
    if job.named:
        params, buffers, groups = job.named
        model = Named(params, buffers)
        own = dict(model.named_parameters())
        groups = [{"params": [own[name] for name in names]} for names in groups]
    else:
        model = Net()
        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        groups = [{"params": [p for p in model.parameters() if p.dim() > 1]},
                  {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0, "lr": 7e-3}]
    # fully_shard puts new parameters in: the optimizer takes them afterwards.
    names = {id(p): name for name, p in model.named_parameters()}
    named_groups = [[names[id(p)] for p in group.pop("params")] for group in groups]
    fully_shard(model, mesh=mesh)
    own = dict(model.named_parameters())
    for group, members in zip(groups, named_groups):
        group["params"] = [own[name] for name in members]
    return model, torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95) if not job.load else (0.5, 0.5))


def _step(model, optim, step, rank, world):
    generator = torch.Generator().manual_seed(100 + step)
    ids = torch.randint(0, VOCABULARY, (4, 8), generator=generator)
    mine = ids[rank * 4 // world:(rank + 1) * 4 // world]
    loss = torch.nn.functional.cross_entropy(model(mine).flatten(0, 1), mine.roll(1, 1).flatten())
    loss.backward()
    optim.step()
    optim.zero_grad()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item()


def _whole(value):
    if isinstance(value, dict):
        return {key: _whole(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_whole(v) for v in value)
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.clone() if isinstance(value, torch.Tensor) else value


def _rank_main(rank, job, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(1 if not job.load else 2)
    meeting.join(rank, job.world, folder)
    model, optim = _start(job, init_device_mesh("cpu", (job.world,)))
    loaded = None
    if job.load:
        model_state, optim_state = get_state_dict(model, optim)
        state = {"model": model_state, "optim": optim_state}
        dcp.load(state, checkpoint_id=job.load)
        set_state_dict(model, optim, model_state_dict=state["model"], optim_state_dict=state["optim"])
        loaded = _whole(dict(zip(("model", "optim"), get_state_dict(model, optim))))
    start = 10 if job.load else 0
    losses = [_step(model, optim, start + n, rank, job.world) for n in range(job.steps)]
    model_state, optim_state = get_state_dict(model, optim)
    if job.save:
        dcp.save({"model": model_state, "optim": optim_state, "note": {"text": "naïve", "epoch": 3}}, checkpoint_id=job.save)
    ended = _whole({"model": model_state, "optim": optim_state})
    if rank == 0:
        torch.save({"losses": losses, "loaded": loaded, "ended": ended}, os.path.join(folder, RESULT))
    dist.barrier()
    dist.destroy_process_group()


def run(job):
    """{"losses", "loaded": the state after loading, "ended": the state in the end}, whole tensors, as rank 0 sees it."""
    # What the ranks import, once; by names that the server finds without our sys.path.
    mp.get_context("forkserver").set_forkserver_preload(
        ["torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict"])
    with tempfile.TemporaryDirectory(prefix="fsdp-") as folder:
        mp.start_processes(_rank_main, (job, folder), nprocs=job.world, start_method="forkserver")
        return torch.load(os.path.join(folder, RESULT), weights_only=False)
