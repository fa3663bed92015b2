"""Checkpoints of very many ranks: every file as DeepSpeed would pickle it, every storage a hole of zeros.

torch.serialization.skip_data writes headers and seeks over the data, so 12 GB cost a few megabytes of disk.
"""
import os
import shutil
from collections import OrderedDict

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

TAG = "global_step7"


def parameter_shapes(count, rows=1000, columns=1000):
    return OrderedDict((f"layers.{i // 10}.part{i % 10}.weight", torch.Size([rows, columns])) for i in range(count))


def save(value, *path):
    with torch.serialization.skip_data():
        torch.save(value, os.path.join(*path))


def model_state(shapes, ranks, stage):
    numels = [shape.numel() for shape in shapes.values()]
    if stage == 3:
        module = OrderedDict((name, torch.empty(0, dtype=torch.bfloat16)) for name in shapes)
    else:
        flat = torch.empty(sum(numels), dtype=torch.bfloat16)
        module = OrderedDict((name, part.view(shape)) for (name, shape), part in zip(shapes.items(), flat.split(numels)))
    return {"module": module, "buffer_names": [], "optimizer": None, "param_shapes": [shapes],
            "frozen_param_shapes": None, "frozen_param_fragments": None, "shared_params": {}, "lr_scheduler": None,
            "data_sampler": None, "random_ltd": None, "sparse_tensor_module_names": set(), "skipped_steps": 0,
            "global_steps": 7, "global_samples": 7 * ranks, "dp_world_size": ranks, "mp_world_size": 1,
            "ds_config": {"zero_optimization": {"stage": stage}}, "ds_version": "0.19.8",
            "checkpoint_parallel_dimensions": {"pp_degree": 1, "tp_degree": 1}}


def adam(size, groups=1):
    state = {"step": torch.tensor(7.0), "exp_avg": torch.empty(size), "exp_avg_sq": torch.empty(size)}
    return {"state": {0: state}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "params": [0]}]}


def shared_optimizer_keys():
    return {"loss_scaler": LossScaler(1.0), "dynamic_loss_scale": False, "overflow": False, "ds_version": "0.19.8"}


def stage_1_shard(shapes, rank, ranks):
    total = sum(shape.numel() for shape in shapes.values())
    part = -(-total // (2 * ranks)) * 2
    begin, end, at, mapping = rank * part, (rank + 1) * part, 0, OrderedDict()
    for name, shape in shapes.items():
        first, last = max(begin, at), min(end, at + shape.numel())
        if first < last:
            mapping[name] = fragment_address(numel=last - first, start=first - begin)
        at += shape.numel()
    padding = max(0, min(part, end - total))
    return {**shared_optimizer_keys(), "clip_grad": 0.0, "zero_stage": ZeroStageEnum(1), "partition_count": [ranks],
            "group_paddings": [padding], "param_alignment_paddings": [[0] * len(shapes)],
            "param_slice_mappings": [mapping], "base_optimizer_state": adam(part),
            "single_partition_of_fp32_groups": [torch.empty(part - padding)]}


def stage_3_shard(shapes, ranks):
    part = sum(-(-shape.numel() // ranks) for shape in shapes.values())
    return {**shared_optimizer_keys(), "zero_stage": ZeroStageEnum(3), "partition_count": ranks,
            "optimizer_state_dict": adam(part), "fp32_flat_groups": [torch.empty(part)]}


def is_made(folder):
    return os.path.exists(os.path.join(folder, "latest"))


def make(folder, ranks, parameters, stage, side=1000):
    """Writes FOLDER/global_step7 and FOLDER/latest, unless they are there; each parameter has side x side elements."""
    if is_made(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    tag = os.path.join(folder, TAG)
    os.makedirs(tag)
    shapes = parameter_shapes(parameters, side, side)
    if stage == 3:
        model, shard = model_state(shapes, ranks, 3), stage_3_shard(shapes, ranks)
    else:
        save(model_state(shapes, ranks, 1), tag, "mp_rank_00_model_states.pt")
    for rank in range(ranks):
        if stage == 3:
            save(model, tag, f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        else:
            shard = stage_1_shard(shapes, rank, ranks)
        save({"optimizer_state_dict": shard, "ds_config": {}, "ds_version": "0.19.8"}, tag,
             f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    with open(os.path.join(folder, "latest"), "w") as file:
        file.write(TAG)
    return folder
