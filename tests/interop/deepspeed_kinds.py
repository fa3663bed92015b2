"""The kinds of checkpoint that scripts/make-deepspeed-checkpoints can write, each by training a real engine on CPU.

A kind folder holds what the fixtures in tests/data/deepspeed hold: ckpt/, expected.safetensors, expected.json.
"""
import dataclasses
import datetime
import functools
import gc
import importlib
import json
import os
import re
import shutil
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

import deepspeed_models as models
import deepspeed_truth
import meeting


@dataclasses.dataclass
class Kind:
    about: str
    world: int = 2
    zero: dict = dataclasses.field(default_factory=dict)
    config: dict = dataclasses.field(default_factory=dict)
    dtype: str = "fp32"
    optimizer: str = "adamw"
    model: object = models.Net
    batch: object = models.net_batch
    groups: object = models.decay_groups
    save: dict = dataclasses.field(default_factory=dict)
    runner: str = "plain"   # plain, moe, pipe
    layers: object = models.pipeline_layers
    pp: int = 1
    full: int = 0   # elements of one expert group on one rank, where that is not DeepSpeed's default
    steps: int = 3
    sequences: int = 0   # ranks that share a sequence (Ulysses)
    may_refuse: bool = False   # names are inferred where DeepSpeed stores none: a clear refusal is right, a guess is not


def _zero(stage, **more):
    return {"stage": stage, **more}


def _moe(**more):
    return Kind(**{"model": models.MoeNet, "batch": models.moe_batch, "runner": "moe", "world": 4, **more})


def _every_stage(name, about, **more):
    return {f"zero{s}-{name}": Kind(f"ZeRO-{s}, {about}", zero=_zero(s), **more) for s in (1, 2, 3)}


_OFFLOAD = {"offload_optimizer": {"device": "cpu"}}

KINDS = {
    "stage0-adamw": Kind("no ZeRO, fp32, plain torch optimizer"),
    "stage0-sgd": Kind("no ZeRO, fp32, one momentum buffer", optimizer="sgd"),
    "stage0-adafactor": Kind("no ZeRO, rows and columns instead of second moments", optimizer="adafactor"),
    "stage0-tensor-lr": Kind("no ZeRO, an option that is a tensor", optimizer="tensor-lr"),
    "stage0-bf16": Kind("no ZeRO, bf16 with fp32 masters kept by the wrapper", dtype="bf16"),
    "fp16-stage0": Kind("no ZeRO, fp16, dynamic loss scale", dtype="fp16"),
    "fp16-zero1": Kind("ZeRO-1, fp16, dynamic loss scale", dtype="fp16", zero=_zero(1)),
    "fp16-zero3": Kind("ZeRO-3, fp16, frozen and tied", dtype="fp16", zero=_zero(3), world=3),
    **_every_stage("sgd", "SGD with momentum", optimizer="sgd"),
    **_every_stage("adagrad", "Adagrad (DeepSpeed takes one group only)", optimizer="adagrad",
                   groups=models.one_group),
    **_every_stage("odd", "an optimizer with states of odd kinds", optimizer="odd"),
    "zero2-amsgrad": Kind("a third Adam moment", zero=_zero(2), optimizer="amsgrad", world=3),
    "bf16-zero3-dp3": Kind("bf16, frozen and tied, uneven over three ranks", zero=_zero(3), dtype="bf16", world=3),
    "zero2-offload": Kind("optimizer kept on the CPU", zero=_zero(2, **_OFFLOAD)),
    "zero3-offload": Kind("optimizer kept on the CPU, small sub-groups",
                          zero=_zero(3, sub_group_size=150, **_OFFLOAD)),
    "zero2-elastic-dp3": Kind("elastic form of the optimizer state", zero=_zero(2, elastic_checkpoint=True), world=3),
    "bf16opt-sgd-dp3": Kind("BF16_Optimizer with momentum only", zero=_zero(1), dtype="bf16", world=3, optimizer="sgd",
                            config={"data_types": {"grad_accum_dtype": "fp32"}}),
    "zero1-small-dp4": Kind("one tiny group a parameter: ranks that hold only padding", zero=_zero(1), world=4,
                            model=models.ManySmall, batch=models.small_batch, groups=models.group_each),
    "zero2-small-dp3": Kind("the same at stage 2, two groups", zero=_zero(2), world=3, model=models.ManySmall,
                            batch=models.small_batch, groups=models.one_group),
    "zero3-small-dp4": Kind("the same at stage 3: ranks that hold only filler", zero=_zero(3), world=4,
                            model=models.ManySmall, batch=models.small_batch, groups=models.group_each),
    **{f"zero{s}-no-frozen": Kind("exclude_frozen_parameters", zero=_zero(s),
                                  save={"exclude_frozen_parameters": True}) for s in (1, 2, 3)},
    "bf16-pipe-pp2-dp2": Kind("pipeline, bf16, ZeRO-1, tied table on both stages", world=4, dtype="bf16",
                              zero=_zero(1), runner="pipe", pp=2),
    "pipe-pp2-nozero": Kind("pipeline without ZeRO: states have numbers, and no file tells the stages apart", runner="pipe",
                            pp=2, may_refuse=True),
    "untied-pipe-nozero": Kind("pipeline without ZeRO and without tied layers", runner="pipe", pp=2,
                               layers=models.untied_pipeline_layers),
    "bf16-pipe-nozero": Kind("bf16 pipeline without ZeRO: partitions, but no list of shapes", world=4, dtype="bf16",
                             runner="pipe", pp=2),
    **{f"zero{s}-dp1": Kind("one rank: padding in the moments only", zero=_zero(s), world=1) for s in (1, 2, 3)},
    "zero2-roundrobin-dp3": Kind("round_robin_gradients", zero=_zero(2, round_robin_gradients=True), world=3),
    **{f"bf16-zero{s}-lora": Kind("nearly all weights frozen", zero=_zero(s), dtype="bf16", world=3, model=models.Lora)
       for s in (1, 2, 3)},
    "moe-two-sizes": _moe(about="expert groups of two sizes, ZeRO-1", zero=_zero(1), model=models.TwoSizesMoeNet),
    "moe-elastic": _moe(about="elastic form: no param_groups, experts by name", zero=_zero(1, elastic_checkpoint=True)),
    "moe-roundrobin": _moe(about="round_robin_gradients with experts", zero=_zero(2, round_robin_gradients=True)),
    "moe-full": _moe(about="expert groups that are full within a layer", zero=_zero(2), full=200),
    "moe-zero1": _moe(about="two MoE layers with 2 and 4 experts, ZeRO-1", zero=_zero(1)),
    "moe-zero2-data-first": _moe(about="use_data_before_expert_parallelism", zero=_zero(2),
                                 config={"use_data_before_expert_parallelism": True}),
    "moe-nozero": _moe(about="two MoE layers without ZeRO"),
    "bf16-moe-zero2": _moe(about="bf16 MoE, ZeRO-2", zero=_zero(2), dtype="bf16"),
}


LARGE_WIDTH = 1024
# What torch and DeepSpeed import when the first engine is made: it would take each rank some seconds.
_IMPORTED_LATE = ("deepspeed", "torch._dynamo", "deepspeed.runtime.zero.muon.muon_optimizer", "deepspeed.runtime.zero.stage3",
                  "deepspeed.moe.layer", "deepspeed.pipe")
PATIENCE_S = 300   # for one kind; a rank that waits longer for another never meets it


def large_kind(stage, gigabytes):
    """bf16 with fp32 masters and two moments: 14 bytes a parameter in stages 1 and 2, 12 in stage 3."""
    depth = max(1, round(gigabytes * 1e9 / (12 if stage == 3 else 14) / (LARGE_WIDTH * LARGE_WIDTH)))
    model = functools.partial(models.Net, width=LARGE_WIDTH, vocab=64, depth=depth, tied=False, frozen=False)
    return Kind("for timing", zero=_zero(stage), dtype="bf16", steps=1, model=model,
                batch=functools.partial(models.net_batch, 64))


def kind_of(name):
    """One of KINDS, or `large-zero2-1.5GB`: so many gigabytes at that stage."""
    large = re.fullmatch(r"large-zero([123])-([0-9.]+)GB", name)
    return large_kind(int(large[1]), float(large[2])) if large else KINDS[name]


def _config(kind):
    config = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1, "steps_per_print": 10**9,
              "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, **kind.config}
    if kind.zero:
        config["zero_optimization"] = {"overlap_comm": False, **kind.zero}
    if kind.dtype == "bf16":
        config["bf16"] = {"enabled": True}
    if kind.dtype == "fp16":
        config["fp16"] = {"enabled": True, "initial_scale_power": 4, "loss_scale_window": 2}
    return config


def _param_groups(kind, model):
    groups = kind.groups(model)
    if kind.runner != "moe":
        return groups
    from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer
    for i, group in enumerate(groups):
        group["name"] = f"group{i}"
    return split_params_into_different_moe_groups_for_optimizer(groups, **({"max_group_size": kind.full} if kind.full else {}))


def global_expert_names(engine):
    """Local expert numbers become global ones, as the model's own MoE layers see it."""
    from deepspeed.moe.layer import MoE
    first = {}
    for name, module in engine.module.named_modules():
        if isinstance(module, MoE):
            from deepspeed.utils import groups
            rank = groups._get_expert_parallel_rank(module.expert_group_name)
            first[name] = rank * module.num_local_experts

    def rename(name):
        found = re.fullmatch(r"(.*)(\.deepspeed_moe\.experts\.deepspeed_experts\.)(\d+)(\..*)", name)
        if not found:
            return name
        layer, middle, number, rest = found.groups()
        return f"{layer}{middle}{first[layer] + int(number)}{rest}"
    return rename


def start(kind):
    """The kind's engine, with its model and optimizer as they are before the first step."""
    import deepspeed
    if kind.runner == "pipe":
        def loss(out, targets):
            return torch.nn.functional.cross_entropy(out.flatten(0, 1).float(), targets.flatten())
        model = deepspeed.pipe.PipelineModule(layers=kind.layers(), num_stages=kind.pp, loss_fn=loss, seed_layers=True,
                                              seed_fn=torch.manual_seed)   # so the stages do not change the weights
    else:
        model = kind.model()
    optimizer = models.make_optimizer(kind.optimizer, _param_groups(kind, model))
    mpu = None
    if kind.sequences:
        from deepspeed.runtime.sequence_parallel import parallel_state_sp as mpu
        mpu.initialize_sequence_parallel(kind.sequences)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=_config(kind), mpu=mpu)[0]


def train_step(kind, engine):
    """One step on a batch drawn from torch's generator. Returns the loss."""
    if kind.runner == "pipe":
        return engine.train_batch(iter([models.net_batch(29)]))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind.dtype, torch.float32)
    batch = [x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for x in kind.batch()]
    loss = engine(*batch)
    engine.backward(loss)
    engine.step()
    return loss


def _train(kind):
    engine = start(kind)
    torch.manual_seed(100 + dist.get_rank())
    for _ in range(kind.steps):
        train_step(kind, engine)
    return engine


def meet(rank, kind, folder):
    os.environ.update(meeting.LOOPBACK, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(kind.world),
                      LOCAL_WORLD_SIZE=str(kind.world), DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    import deepspeed
    backend = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None   # compiles C++ for a minute, and waits for ever where a killed run left its lock
    if kind.dtype == "fp16":   # DeepSpeed asks for a CPU with instructions for it; torch needs none
        deepspeed.accelerator.get_accelerator().is_fp16_supported = lambda: True
    deepspeed.init_distributed(dist_backend="gloo", verbose=False, rank=rank, world_size=kind.world,
                               init_method=meeting.place(folder),
                               timeout=datetime.timedelta(seconds=PATIENCE_S))


def _rank_main(rank, kind, folder, with_truth):
    meet(rank, kind, folder)
    torch.manual_seed(1)
    engine = _train(kind)
    if with_truth:
        rename = global_expert_names(engine) if kind.runner == "moe" else lambda n: n
        truth = deepspeed_truth.gather(engine, rename)
        torch.save((truth.tensors, truth.numbers), os.path.join(folder, f"truth_{rank}.pt"))
    # DeepSpeed refuses client state beside MoE checkpoints.
    client = {} if kind.runner == "moe" else {"iteration": kind.steps, "note": {"writer": 0, "text": "naïve"}}
    engine.save_checkpoint(os.path.join(folder, "ckpt"), client_state=client, **kind.save)
    dist.barrier()
    dist.destroy_process_group()


def merge_truths(folder, world):
    """One truth of all ranks'; where two ranks know the same tensor they must agree."""
    tensors, numbers = {}, {}
    for rank in range(world):
        path = os.path.join(folder, f"truth_{rank}.pt")
        mine, my_numbers = torch.load(path, weights_only=True)
        for name, value in mine.items():
            assert name not in tensors or torch.equal(tensors[name], value), f"{name} differs on rank {rank}"
            tensors[name] = value.clone()
        numbers.update(my_numbers)
        os.remove(path)
    return tensors, numbers


def run_ranks(main, kind, folder, *args, patience=PATIENCE_S):
    """main(rank, kind, folder, ...) on every rank. They are forked, so that the libraries are imported once."""
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    gc.freeze()   # else every rank that collects garbage copies the libraries' pages to look at them
    context = mp.start_processes(main, (kind, folder, *args), nprocs=kind.world, join=False, start_method="fork")
    deadline = time.monotonic() + patience
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"the ranks did not finish within {patience} s")
    os.remove(meeting.file_in(folder))


def write_checkpoint(kind, folder, with_truth):
    """Trains and saves FOLDER/ckpt."""
    folder = os.path.abspath(folder)
    run_ranks(_rank_main, kind, folder, with_truth)
    for script in ("zero_to_fp32.py", "zero_to_torch.py"):
        if os.path.exists(os.path.join(folder, "ckpt", script)):
            os.remove(os.path.join(folder, "ckpt", script))


def make(name, out):
    """Writes OUT/<name>: the checkpoint and, but for large ones, the truth about it."""
    kind, folder = kind_of(name), os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    scratch = tempfile.mkdtemp(dir=out, prefix=f".{name}-")
    with_truth = name in KINDS
    write_checkpoint(kind, scratch, with_truth)
    if with_truth:
        _write_truth(kind, scratch)
    os.rename(scratch, folder)
    return folder


def _write_truth(kind, folder):
    tensors, numbers = merge_truths(folder, kind.world)
    if kind.save.get("exclude_frozen_parameters"):
        tensors = {k: v for k, v in tensors.items() if not k.startswith("frozen/")}
    save_file(tensors, os.path.join(folder, "expected.safetensors"))
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump({"about": kind.about, "oracle": "live partitions", "step": kind.steps, "world": kind.world,
                   "zero_stage": kind.zero.get("stage", 0), "numbers": numbers}, file, indent=1, sort_keys=True)
