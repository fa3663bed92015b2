"""Small models and optimizers for the checkpoints that scripts/make-deepspeed-checkpoints writes.

Sizes are odd on purpose: partitions must cut through rows, and padding must be there.
"""
import types

import torch
from torch import nn


class Net(nn.Module):
    """Tied head, a frozen table, an aside that is never a multiple of anything, buffers of three dtypes."""

    def __init__(self, width=13, vocab=31, depth=2, tied=True, frozen=True):
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        self.pos = nn.Parameter(torch.randn(5, width), requires_grad=not frozen)
        self.gain = nn.Parameter(torch.ones(1))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.emb.weight
        self.register_buffer("scale", torch.rand(3))
        self.register_buffer("seen", torch.tensor([7]))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, tokens, targets):
        x = self.emb(tokens) + self.pos[: tokens.shape[1]]
        for layer in self.layers:
            x = x + torch.relu(layer(x)) * self.gain
        logits = self.head(self.norm(x))
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Block(nn.Module):
    """Every kind of tensor: trained, frozen, a buffer."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.shift = nn.Parameter(torch.randn(width), requires_grad=False)
        self.register_buffer("factor", torch.rand(width))

    def forward(self, x):
        return self.fc(x) * self.factor + self.shift


class Wrapped(Net):
    """Activation checkpointing as torch has it: its part of a parameter's name is not in the keys of the state dict."""

    def __init__(self, width=13):
        super().__init__(width)
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
        self.layers = nn.ModuleList([checkpoint_wrapper(Block(width)), Block(width), checkpoint_wrapper(Block(width))])


class Twice(Net):
    """A module and a buffer that are registered twice: lists of parameters and buffers have the first names alone."""

    def __init__(self):
        super().__init__()
        self.same_norm = self.norm
        self.register_buffer("same_scale", self.scale)


class Hollow(Net):
    """Parameters without elements, which all lie at the same address: DeepSpeed lists them as shared."""

    def __init__(self, width=13):
        super().__init__(width)
        self.nothing = nn.Parameter(torch.empty(0, width))
        self.frozen_nothing = nn.Parameter(torch.empty(0), requires_grad=False)


def net_batch(vocab=31):
    return torch.randint(0, vocab, (4, 5)), torch.randint(0, vocab, (4, 5))


class ManySmall(nn.Module):
    """Parameters of one to three elements: with several ranks some partitions are padding only."""

    def __init__(self, count=9):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(torch.randn(1 + i % 3)) for i in range(count))

    def forward(self, x, _):
        return sum((p * p).sum() for p in self.parts) * x.sum().abs()


def small_batch():
    return torch.rand(2), None


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, width + 2)
        self.down = nn.Linear(width + 2, width, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class MoeNet(nn.Module):
    """Two MoE layers with different numbers of experts, and a dense layer between them."""

    def __init__(self, width=7, experts=(2, 4), ep_sizes=(2, 2)):
        super().__init__()
        from deepspeed.moe.layer import MoE
        self.inp = nn.Linear(width, width)
        self.mid = nn.Linear(width, width)
        self.moes = nn.ModuleList(
            MoE(width, Expert(width), num_experts=n, ep_size=ep, k=1, use_residual=False,
                min_capacity=8) for n, ep in zip(experts, ep_sizes))
        self.out = nn.Linear(width, 3)

    def forward(self, x, targets):
        x = self.inp(x)
        x = x + self.moes[0](x)[0]
        x = torch.relu(self.mid(x))
        x = x + self.moes[1](x)[0]
        return nn.functional.cross_entropy(self.out(x).float(), targets)


class TwoSizesMoeNet(MoeNet):
    """The layers' experts are spread over groups of different sizes."""

    def __init__(self):
        super().__init__(experts=(4, 8), ep_sizes=(2, 4))


class AutoEpBlock(nn.Module):
    """Experts as Mixtral has them, in weights of all of them, which DeepSpeed's AutoEP replaces: this is never called."""

    def __init__(self, width, experts, hidden):
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.Module()
        self.experts.gate_up_proj = nn.Parameter(torch.randn(experts, 2 * hidden, width) / 4)
        self.experts.down_proj = nn.Parameter(torch.randn(experts, width, hidden) / 4)


class AutoEpNet(nn.Module):
    """Two layers of experts that AutoEP takes for Mixtral's."""
    CONFIG = {"preset_model": "mixtral", "use_grouped_mm": False}

    def __init__(self, width=7, experts=4, hidden=5):
        super().__init__()
        self.config = types.SimpleNamespace(num_local_experts=experts, num_experts_per_tok=2)
        self.inp = nn.Linear(width, width)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(nn.Module() for _ in range(2))
        for layer in self.model.layers:
            layer.mlp = AutoEpBlock(width, experts, hidden)
        self.out = nn.Linear(width, 3)

    def forward(self, x, targets):
        x = self.inp(x).unsqueeze(0)
        for layer in self.model.layers:
            y = layer.mlp(x)
            x = x + (y[0] if isinstance(y, tuple) else y)
        return nn.functional.cross_entropy(self.out(x[0]).float(), targets)


def moe_batch(width=7, dtype=torch.float32):
    return torch.randn(16, width, dtype=dtype), torch.randint(0, 3, (16,))


class TiedIn(nn.Embedding):
    """The tied table as the pipeline's first layer."""


class PipeBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.fc(self.norm(x)))


def pipeline_layers(width=11, vocab=29, depth=3):
    from deepspeed.pipe import LayerSpec, TiedLayerSpec

    def as_head(module, x):
        return nn.functional.linear(x, module.weight)

    return [TiedLayerSpec("embed", TiedIn, vocab, width),
            *(LayerSpec(PipeBlock, width) for _ in range(depth)),
            LayerSpec(nn.LayerNorm, width),
            TiedLayerSpec("embed", TiedIn, vocab, width, forward_fn=as_head)]


def untied_pipeline_layers(width=11, vocab=29, depth=3):
    from deepspeed.pipe import LayerSpec
    return [LayerSpec(nn.Embedding, vocab, width), *(LayerSpec(PipeBlock, width) for _ in range(depth)),
            LayerSpec(nn.LayerNorm, width), LayerSpec(nn.Linear, width, vocab)]


class Lora(nn.Module):
    """Nearly all weights are frozen."""

    def __init__(self, width=13, vocab=31, depth=3):
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        self.base = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, vocab)
        self.requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(width, 2, bias=False) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(2, width, bias=False) for _ in range(depth))

    def forward(self, tokens, targets):
        x = self.emb(tokens)
        for base, down, up in zip(self.base, self.down, self.up):
            x = x + torch.relu(base(x) + up(down(x)))
        return nn.functional.cross_entropy(self.head(x).flatten(0, 1).float(), targets.flatten())


class OddStates(torch.optim.Optimizer):
    """An optimizer nobody knows: states of several dtypes, a counter, a plain number, one state born late."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["ema"] = torch.zeros_like(p)
                    state["half_ema"] = torch.zeros_like(p, dtype=torch.bfloat16)
                    state["sign"] = torch.zeros_like(p, dtype=torch.int8)
                    state["count"] = torch.tensor(0, dtype=torch.int64)
                    state["decay"] = 0.875
                else:
                    state.setdefault("late", torch.zeros_like(p)).add_(p.grad)
                state["ema"].lerp_(p.grad, 0.125)
                state["half_ema"].copy_(state["ema"] * 3)
                state["sign"].copy_(p.grad.sign())
                state["count"] += 1
                p.sub_(state["ema"].sign() * group["lr"])


def make_optimizer(kind, groups):
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    if kind == "tensor-lr":
        return torch.optim.AdamW(groups, lr=torch.tensor(2e-3))
    if kind == "adafactor":
        return torch.optim.Adafactor(groups)
    if kind == "adagrad":
        return torch.optim.Adagrad(groups, lr=0.05)
    if kind == "odd":
        return OddStates(groups)
    if kind == "adamw-defaults":
        return torch.optim.AdamW(groups)
    if kind == "amsgrad":
        return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95), amsgrad=True)
    return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95))


def decay_groups(model):
    """Two param groups: with and without weight decay, as most training scripts do."""
    own = [p for p in model.parameters() if p.requires_grad]
    return [{"params": [p for p in own if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0}]


def frozen_group_first(model):
    """Stage 3 takes a group without a trained parameter, and makes no buffer of it."""
    return [{"params": [p for p in model.parameters() if not p.requires_grad], "lr": 1e-5}, *decay_groups(model)]


def one_group(model):
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def group_each(model):
    return [{"params": [p]} for p in model.parameters() if p.requires_grad]
