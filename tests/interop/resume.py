"""Resumes training from checkpoints with real DeepSpeed: a server that is told what to do on stdin, one line of JSON a job.

DeepSpeed is imported once; every job forks its ranks. `Trainer` is the other end, for the tests.
Every rank computes the same whole batch, drawn from a seed that is the number of the step, so losses do not depend on the layout.
"""
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback

import torch
from torch import nn

import deepspeed_kinds as kinds
import deepspeed_models as models

PATIENCE_S = 120   # for one job


class Skipping(nn.Module):
    """A pipeline layer without weights: it has a file of its own, with nothing in it."""

    def forward(self, x):
        return x


class Bare(nn.Module):
    """Nothing but trained weights, whose names are not in the order in which they are registered."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(31, 13)
        self.b = nn.Linear(13, 13)
        self.a = nn.Linear(13, 13)
        self.head = nn.Linear(13, 31, bias=False)

    def forward(self, tokens, targets):
        x = self.table(tokens)
        logits = self.head(x + self.a(torch.relu(self.b(x))))
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class HeadFirst(models.Net):
    """The second name of the tied table comes before the first one in the alphabet, as `lm_head.weight` does."""

    def __init__(self):
        super().__init__()
        self.as_head = self.head
        del self.head

    def forward(self, tokens, targets):
        logits = self.as_head(self.norm(self.emb(tokens) * self.gain + self.pos[: tokens.shape[1]]))
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def pipeline_layers():
    from deepspeed.pipe import LayerSpec
    layers = models.pipeline_layers(depth=4)
    return [*layers[:3], LayerSpec(Skipping), *layers[3:]]


def two_tied_layers(width=11, vocab=29):
    """Two tied modules whose only parameter has one name. The last stage uses the second one first, and not all uses have files."""
    from deepspeed.pipe import LayerSpec, TiedLayerSpec

    def as_head(module, x):
        return nn.functional.linear(x, module.weight)

    def middle():
        return TiedLayerSpec("middle", nn.Linear, width, width, False)
    return [TiedLayerSpec("embed", models.TiedIn, vocab, width), LayerSpec(models.PipeBlock, width), middle(),
            LayerSpec(models.PipeBlock, width), LayerSpec(models.PipeBlock, width), middle(), LayerSpec(nn.LayerNorm, width),
            TiedLayerSpec("embed", models.TiedIn, vocab, width, forward_fn=as_head)]


def three_groups(model):
    """With decay, without, and the table on its own: groups of different options, not in the model's order."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return [{"params": [p for name, p in own.items() if p.ndim <= 1], "weight_decay": 0.0, "eps": 1e-6},
            {"params": [p for name, p in own.items() if p.ndim > 1 and "emb" not in name], "weight_decay": 0.1},
            {"params": [p for name, p in own.items() if "emb" in name], "weight_decay": 0.02, "betas": (0.8, 0.9)}]


def moe_model(layout):
    return models.MoeNet(experts=(2, 4), ep_sizes=(layout.ep, layout.ep))


def as_rows(truth, engine):
    """AutoEP's weights row by row, under the experts' numbers: a rank has its own experts' alone."""
    first = {f"{name}.experts": module.ep_rank * module.num_local_experts for name, module in engine.module.named_modules()
             if hasattr(module, "num_local_experts")}
    for key in [key for key in truth.tensors if key.split("/", 1)[1].rpartition(".")[0] in first]:
        number = first[key.split("/", 1)[1].rpartition(".")[0]]
        for row, value in enumerate(truth.tensors.pop(key)):
            truth.tensors[f"{key}.{number + row}"] = value


def llama(_):
    import autotp
    return autotp.model(4, 2, 50)


SCHEDULE = {"scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 1e-4, "warmup_max_lr": 3e-3, "warmup_num_steps": 6,
                                                         "warmup_type": "linear"}}}


@dataclasses.dataclass
class Layout:
    dp: int = 1
    tp: int = 1
    pp: int = 1
    ep: int = 1
    zero: int = 0

    def flag(self, source=None):
        """What --layout says: the degrees that are not 1, here or in the source."""
        own, old = dataclasses.asdict(self), dataclasses.asdict(source or self)
        return ",".join(f"{key}={own[key]}" for key in own if key in ("dp", "zero") or (own[key], old[key]) != (1, 1))

    def __str__(self):
        return self.flag().replace("=", "").replace(",", "-")


@dataclasses.dataclass
class Program:
    """A training program: all of it that does not depend on the layout."""
    kind: kinds.Kind
    model: object = None   # of the layout, where the model depends on it

    def on(self, layout):
        """The kind as it is trained on a layout."""
        zero = {"zero": {**self.kind.zero, "stage": layout.zero}} if layout.zero else {}
        model = {"model": lambda: self.model(layout)} if self.model else {}
        config = dict(self.kind.config)
        if layout.tp > 1:
            config["tensor_parallel"] = {"autotp_size": layout.tp}
        if self.kind.runner == "autoep":
            config["expert_parallel"] = {"enabled": True, "autoep_size": layout.ep, **models.AutoEpNet.CONFIG}
        world = layout.dp * layout.tp * layout.pp
        return dataclasses.replace(self.kind, world=world, pp=layout.pp, config=config, **zero, **model)


def _net(about, **more):
    return Program(kinds.Kind(about, **{"config": {"gradient_clipping": 0.25, **SCHEDULE}, "groups": three_groups, **more}))


PROGRAMS = {
    "net": _net("groups of different options, frozen, tied, buffers, clipping, a scheduler"),
    "net-bf16": _net("the same in bf16", dtype="bf16"),
    "net-fp16": _net("the same in fp16 with a dynamic loss scale", dtype="fp16"),
    "net-bf16opt": _net("BF16_Optimizer", dtype="bf16", config={"data_types": {"grad_accum_dtype": "fp32"}, **SCHEDULE}),
    "net-subgroups": _net("many sub-groups at stage 3", zero={"sub_group_size": 40}),
    "net-sgd": _net("one momentum, no step", optimizer="sgd", groups=models.decay_groups),
    "wrapped": _net("activation checkpoint wrappers", model=models.Wrapped),
    "head-first": _net("a tied name that comes first in the alphabet", model=HeadFirst),
    "ulysses": _net("sequence parallel ranks", sequences=2),
    "twice": _net("modules and buffers under two names", model=models.Twice),
    "hollow": _net("parameters without elements", model=models.Hollow),
    "frozen-group": _net("a group of frozen parameters", groups=models.frozen_group_first),
    "small": Program(kinds.Kind("more ranks than elements in a group", model=models.ManySmall, batch=models.small_batch,
                                optimizer="sgd", groups=models.group_each)),
    **{name: Program(kinds.Kind("weights alone, AdamW as torch has it", model=Bare, optimizer="adamw-defaults",
                                groups=models.one_group, dtype=dtype)) for name, dtype in (("bare", "fp32"), ("bare-bf16", "bf16"))},
    "pipe": Program(kinds.Kind("pipeline, tied ends, a layer without weights", runner="pipe", layers=pipeline_layers)),
    "pipe-bf16": Program(kinds.Kind("the same in bf16", runner="pipe", layers=pipeline_layers, dtype="bf16")),
    "pipe-untied": Program(kinds.Kind("pipeline without tied modules", runner="pipe", layers=models.untied_pipeline_layers)),
    "pipe-two-tied": Program(kinds.Kind("pipeline with two tied modules", runner="pipe", layers=two_tied_layers)),
    "moe": Program(kinds.Kind("two MoE layers", runner="moe", batch=models.moe_batch), moe_model),
    "moe-full": Program(kinds.Kind("groups of experts that are full within an expert", runner="moe", batch=models.moe_batch, full=200),
                        moe_model),
    "moe-two-sizes": Program(kinds.Kind("layers whose experts are over ranks of their own numbers", runner="moe",
                                        model=models.TwoSizesMoeNet, batch=models.moe_batch)),
    "autoep": Program(kinds.Kind("experts in weights of all of a rank's", runner="autoep", model=models.AutoEpNet,
                                 batch=models.moe_batch)),
    "llama": Program(kinds.Kind("Llama under AutoTP", runner="llama", groups=models.one_group), llama),
}


@dataclasses.dataclass
class Job:
    program: str
    layout: Layout
    load: str = ""            # a checkpoint's root; empty: begin anew
    universal: bool = False   # load the folder that latest_universal names
    steps: int = 5
    save: str = ""            # a root to save to afterwards
    truth: str = ""           # a file for the engine's state as it was loaded (or, without `load`, as it is in the end)
    forget: str = ""          # "optimizer": load the weights only
    mend: bool = False        # undo what stage 3 does wrong when it loads a universal folder


def _start(kind):
    if kind.runner not in ("llama", "autoep"):
        return kinds.start(kind)
    import deepspeed   # its own optimizer: AutoTP cuts the weights in `initialize`, and AutoEP replaces them
    net = kind.model()
    config = {**kind.config, "train_micro_batch_size_per_gpu": 2, "steps_per_print": 10**9, "zero_optimization": kind.zero,
              "optimizer": {"type": "AdamW", "params": {"lr": 2e-3, "weight_decay": 0.1, "torch_adam": True}}}
    return deepspeed.initialize(model=net, config=config, model_parameters=net.parameters())[0]


def _llama_step(engine):
    ids = torch.randint(0, 50, (2, 8))
    loss = engine(input_ids=ids, labels=ids).loss
    engine.backward(loss)
    engine.step()
    return loss


def _step(kind, engine):
    torch.manual_seed(1000 + engine.global_steps)
    loss = _llama_step(engine) if kind.runner == "llama" else kinds.train_step(kind, engine)
    return loss.item()


def _options(engine):
    return [{key: value for key, value in group.items() if key != "params"} for group in engine.optimizer.param_groups]


def _load(job, engine):
    own = _options(engine)
    path, client = engine.load_checkpoint(job.load, load_optimizer_states=job.forget != "optimizer")
    assert path, f"nothing to load in {job.load}"
    names = [group.get("name") for group in own]   # of the groups of experts: they say how the experts are spread
    assert [group.get("name") for group in engine.optimizer.param_groups] == names, f"names of groups, were {names}"
    if job.mend:   # it gives all groups the options of the first, and all of them one step to count on together
        for group, options in zip(engine.optimizer.param_groups, own):
            group.update({key: value for key, value in options.items() if key != "lr"})
        for state in engine.optimizer.optimizer.state.values():
            state["step"] = state["step"].clone()
    return {"client": {key: client.get(key) for key in ("iteration", "note")}}


def _scale(optimizer):
    """The loss scaler's kind and what it counts; of the 16-bit wrappers without ZeRO what they have of that. None where nothing is scaled."""
    if scaler := getattr(optimizer, "loss_scaler", None):
        return [type(scaler).__name__, dict(vars(scaler), dtype=None)]
    config = getattr(optimizer, "loss_scale_config", None)
    if config is None or not config.use_grad_scaling:
        return None
    counted = ("cur_iter", "last_overflow_iter", "scale_factor", "scale_window") if config.dynamic_loss_scale else ()
    least = {"min_scale": config.min_loss_scale} if config.dynamic_loss_scale else {}
    return ["DynamicLossScaler" if config.dynamic_loss_scale else "LossScaler",
            {"cur_scale": config.cur_scale, "dynamic": config.dynamic_loss_scale, **{key: getattr(config, key) for key in counted}, **least}]


def _facts(engine):
    """What must be the same in every layout."""
    scheduler = engine.lr_scheduler.state_dict() if engine.lr_scheduler else None
    return {"global_steps": engine.global_steps, "skipped_steps": engine.skipped_steps, "scheduler": scheduler,
            "clip": getattr(engine.optimizer, "clip_grad", None),
            "scale": _scale(engine.optimizer),
            "options": [{key: value for key, value in group.items() if key in ("lr", "betas", "eps", "weight_decay", "momentum")}
                        for group in _options(engine)]}


def _rank_main(rank, kind, folder, job):
    import deepspeed_truth
    kinds.meet(rank, kind, folder)
    # What a native checkpoint holds must come from it alone. A universal folder leaves frozen weights and buffers to the program.
    torch.manual_seed(2 if job.load and not job.universal else 1)
    kind.config = dict(kind.config)
    if job.universal:
        kind.config["checkpoint"] = {"load_universal": True}
    engine = _start(kind)
    result = {"facts": {}, "losses": []}
    if job.load:
        result.update(_load(job, engine))
        result["facts"] = _facts(engine)

    def write_truth():
        rename = kinds.global_expert_names(engine) if kind.runner == "moe" else lambda n: n
        if job.layout.tp > 1:   # fragments, under a name for each rank
            rename = f"tp{rank % job.layout.tp}/{{}}".format
        truth = deepspeed_truth.gather(engine, rename)
        if kind.runner == "autoep":
            as_rows(truth, engine)
        torch.save((truth.tensors, truth.numbers), os.path.join(folder, f"truth_{rank}.pt"))

    if job.truth and job.load:
        write_truth()
    result["losses"] = [_step(kind, engine) for _ in range(job.steps)]
    if job.truth and not job.load:
        write_truth()
    if job.save:
        client = {} if kind.runner in ("moe", "autoep") else {"iteration": engine.global_steps, "note": {"text": "naïve"}}
        engine.save_checkpoint(job.save, client_state=client)
        result["facts"] = _facts(engine)
    with open(os.path.join(folder, f"result_{rank}.json"), "w") as file:
        json.dump(result, file)


def run(job):
    """Does the job; what rank 0 found, after all ranks agreed."""
    kind = PROGRAMS[job.program].on(job.layout)
    if kind.runner == "llama":
        import autotp  # noqa: F401  imported before the ranks are forked
    folder = tempfile.mkdtemp(prefix="resume-")
    try:
        kinds.run_ranks(_rank_main, kind, folder, job, patience=PATIENCE_S)
        results = []
        for rank in range(kind.world):
            with open(os.path.join(folder, f"result_{rank}.json")) as file:
                results.append(json.load(file))
        assert all(r["losses"] == results[0]["losses"] for r in results), f"ranks disagree: {[r['losses'] for r in results]}"
        if job.truth:
            torch.save(kinds.merge_truths(folder, kind.world), job.truth)
        return results[0]
    finally:
        shutil.rmtree(folder)


def _job(line):
    fields = json.loads(line)
    return Job(**{**fields, "layout": Layout(**fields["layout"])})


def serve():
    """Answers go to the stdout we were given; what the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import deepspeed  # noqa: F401
    for line in sys.stdin:
        try:
            answer = run(_job(line))
        except Exception:
            answer = {"error": traceback.format_exc()[-3000:]}
        print(json.dumps(answer), file=answers)


class Trainer:
    """The server, seen from a test."""

    def __init__(self, log):
        self.log = open(log, "w")
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, start_new_session=True)

    def run(self, program, layout, **more):
        """What `run` returns, or an AssertionError with what the ranks died of."""
        job = Job(program, layout, **more)
        watch = threading.Timer(PATIENCE_S + 60, self.close)
        watch.start()
        try:
            print(json.dumps(dataclasses.asdict(job)), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        finally:
            watch.cancel()
        assert answer, f"the trainer died; see {self.log.name}"
        found = json.loads(answer)
        assert "error" not in found, found["error"]
        return found

    def close(self):
        """Ends it and the ranks it forked."""
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    serve()
