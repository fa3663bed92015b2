"""What a live DeepSpeed engine holds, as whole tensors: the truth that a converted checkpoint is compared with.

Nothing here reads a checkpoint or uses DeepSpeed's own gather helpers (they fail for all groups but the first):
partitions are gathered by hand, and a parameter's place in its flat group is where its storage really lies.
"""
import torch
import torch.distributed as dist


class Truth:
    def __init__(self):
        self.tensors = {}   # "fp32/<name>", "<state>/<name>", "frozen/<name>", "buffer/<name>"
        self.numbers = {}   # "<state>/<name>": a state that is one number for the whole parameter

    def add(self, state, name, value, shape=None):
        if torch.is_tensor(value) and (value.ndim or value.numel() != 1 or shape == value.shape):
            self.tensors[f"{state}/{name}"] = value.detach().clone().contiguous()
        else:
            self.numbers[f"{state}/{name}"] = value.item() if torch.is_tensor(value) else value

    def merge(self, other):
        self.tensors.update(other.tensors)
        self.numbers.update(other.numbers)


def _gather(part, group):
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts)


def _states_of(state, part, group):
    """The states of one flat partition: whole flat tensors, or single numbers."""
    known = [sorted(state)]
    dist.broadcast_object_list(known, src=dist.get_global_rank(group, 0), group=group)
    assert known[0] == sorted(state), f"ranks hold different states: {known[0]} and {sorted(state)}"
    for key in known[0]:
        value = state[key]
        if torch.is_tensor(value) and value.numel() == part.numel() and value.ndim:
            yield key, _gather(value, group), True
        else:
            yield key, value, False


def _flat_group(truth, names, params, low_flat, part, state, group):
    """One parameter group of stage 1 and 2: partitions back to back are the flat group that `params` view into."""
    whole = {"fp32": (_gather(part.detach(), group), True)}
    for key, value, is_flat in _states_of(state, part, group):
        whole[key] = (value, is_flat)
    assert torch.equal(whole["fp32"][0].to(low_flat.dtype), low_flat.detach()), "master and weights differ"
    for p in params:
        at = p.data.storage_offset() - low_flat.storage_offset()
        for key, (value, is_flat) in whole.items():
            if is_flat:
                truth.add(key, names[p], value[at:at + p.numel()].view(p.shape), p.shape)
            else:
                truth.add(key, names[p], value)


def _stage_1_2(truth, names, opt):
    for g, params in enumerate(opt.bit16_groups):
        part = opt.single_partition_of_fp32_groups[g]
        _flat_group(truth, names, params, opt.bit16_groups_flat[g], part, opt.optimizer.state.get(part, {}),
                    opt.real_dp_process_group[g])


def _bf16_optimizer(truth, names, opt):
    for g, params in enumerate(opt.bf16_groups):
        part = opt.fp32_groups_flat_partition[g]
        _flat_group(truth, names, params, opt.bf16_groups_flat[g], part, opt.optimizer.state.get(part, {}),
                    opt.real_dp_process_group[g])


def _stage_3(truth, names, opt):
    for i, params in enumerate(opt.fp16_groups):
        part = opt.fp32_partitioned_groups_flat[i]
        state = opt.optimizer.state.get(part, {})
        at = 0
        for p in params:
            group = p.ds_process_group   # of AutoEP's experts those ranks that have the same ones
            world = dist.get_world_size(group)
            size, shape = p.ds_numel, p.ds_shape
            k = -(-size // world)
            for key, source in {"fp32": part.detach(), **state}.items():
                if torch.is_tensor(source) and source.numel() == part.numel() and source.ndim:
                    whole = _gather(source[at:at + k], group)[:size].view(shape)
                    truth.add(key, names[p], whole, shape)
                else:
                    truth.add(key, names[p], source)
            at += k


def _no_zero(truth, names, optimizer):
    """Stage 0: the optimizer may wrap another one that keeps fp32 masters."""
    inner = getattr(optimizer, "optimizer", optimizer)
    masters = {}
    for low, high in zip(getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", [])):
        masters.update(zip(low, high))
    for p, name in names.items():
        if not p.requires_grad:
            continue
        master = masters.get(p, p)
        truth.add("fp32", name, master, p.shape)
        for key, value in inner.state.get(master, {}).items():
            truth.add(key, name, value, p.shape if torch.is_tensor(value) and value.ndim else None)


def _rest(truth, engine, names):
    """Frozen parameters and persistent buffers."""
    for p, name in names.items():
        if p.requires_grad:
            continue
        if hasattr(p, "ds_tensor"):
            whole = _gather(p.ds_tensor.data, p.ds_process_group)[:p.ds_numel].view(p.ds_shape)
        else:
            whole = p.data
        truth.add("frozen", name, whole, whole.shape)
    persistent = engine.module.state_dict().keys()
    for name, buffer in engine.module.named_buffers():
        if name in persistent:
            truth.add("buffer", name, buffer, buffer.shape)


def gather(engine, rename=lambda name: name):
    """The truth as this rank knows it. Collective: every rank must call it."""
    names = {p: rename(n) for n, p in engine.module.named_parameters()}
    truth, opt = Truth(), engine.optimizer
    if hasattr(opt, "fp32_partitioned_groups_flat"):
        _stage_3(truth, names, opt)
    elif hasattr(opt, "single_partition_of_fp32_groups"):
        _stage_1_2(truth, names, opt)
    elif hasattr(opt, "fp32_groups_flat_partition"):
        _bf16_optimizer(truth, names, opt)
    else:
        _no_zero(truth, names, opt)
    _rest(truth, engine, names)
    return truth
