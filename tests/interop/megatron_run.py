"""Megatron-core on gloo CPU ranks: real models and distributed optimizers that load legacy checkpoints; and what each
rank must hold, cut by numpy alone."""
import argparse
import os
import tempfile
import zlib

import numpy as np
import torch
import torch.multiprocessing as mp

import meeting

STATES = ("param", "exp_avg", "exp_avg_sq")


def padded(rows, divisor, tp):
    step = divisor * tp
    return -(-rows // step) * step


def cut(name, full, config, tp, rank, etp=None, etp_rank=None):
    """What tensor parallel rank `rank` of `tp` holds of a whole tensor, by the layouts of Megatron's layers."""
    if ".experts." in name and etp is not None:
        tp, rank = etp, etp_rank
    if name.endswith(("word_embeddings.weight", "output_layer.weight")):
        rows = padded(config["vocab"], config["div"], tp)
        grown = np.zeros((rows,) + full.shape[1:], full.dtype)
        grown[:min(rows, full.shape[0])] = full[:rows]
        return np.split(grown, tp)[rank]
    if ".linear_qkv." in name:
        return np.split(full, tp)[rank]
    if ".linear_fc1." in name and config.get("swiglu", True):
        gate, up = np.split(full, 2)
        return np.concatenate([np.split(gate, tp)[rank], np.split(up, tp)[rank]])
    if ".linear_fc1." in name:
        return np.split(full, tp)[rank]
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return np.split(full, tp, axis=1)[rank]
    return full


def layers_of(stages, vp, stage, chunk):
    """The global numbers of a chunk's layers: chunk by chunk, each over all stages."""
    total, parts = sum(stages), []
    if vp == 1:
        begin = sum(stages[:stage])
        return list(range(begin, begin + stages[stage]))
    size = total // (vp * len(stages))
    begin = chunk * (total // vp) + stage * size
    parts = list(range(begin, begin + size))
    return parts


def number(name, parts):
    """`name` with its first number, and the second, replaced by those given."""
    pieces, left = name.split("."), list(parts)
    for i, piece in enumerate(pieces):
        if piece.isdigit() and left:
            pieces[i] = str(left.pop(0))
    return ".".join(pieces)


def numbers(name):
    return [int(piece) for piece in name.split(".") if piece.isdigit()]


def without_cuda():
    """Megatron wants CUDA's device and tensors: on the CPU their names are all that it gets."""
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.synchronize = lambda *_: None
    torch.Tensor.cuda = lambda self, *_, **__: self
    plain = torch.Tensor.type
    torch.Tensor.type = lambda self, *args, **named: plain(self, *args, **named) if args or named else plain(
        self).replace("torch.", "torch.cuda.")
    for name in ("tensor", "zeros", "empty", "ones"):
        def make(*args, _made=getattr(torch, name), device=None, **named):
            return _made(*args, device="cpu" if str(device).startswith("cuda") else device, **named)
        setattr(torch, name, make)


def _models(job):
    import torch.nn.functional as F
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import (get_gpt_decoder_block_spec, get_gpt_layer_local_spec,
                                                          get_gpt_mtp_block_spec)
    from megatron.core.transformer import MLATransformerConfig, TransformerConfig
    c, vp = job["config"], job.get("vp", 1)
    moe = dict(num_moe_experts=c["experts"], moe_router_topk=2, moe_ffn_hidden_size=c["ffn"],
               moe_token_dispatcher_type="allgather") if job.get("moe") else {}
    gpt2 = job.get("gpt2", False)
    dtype = getattr(torch, job.get("dtype", "bfloat16"))
    latent = job.get("model", {}).get("multi_latent_attention", False)
    config = (MLATransformerConfig if latent else TransformerConfig)(
        num_layers=c["layers"], hidden_size=c["hid"], ffn_hidden_size=c["ffn"], num_attention_heads=c["heads"],
        num_query_groups=c["heads"] if gpt2 else c["groups"], kv_channels=c["hid"] // c["heads"],
        gated_linear_unit=job.get("gated", not gpt2), activation_func=F.gelu if gpt2 else F.silu,
        add_bias_linear=job.get("biased", gpt2), normalization="LayerNorm" if gpt2 else "RMSNorm", bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16, params_dtype=dtype, pipeline_dtype=dtype, tensor_model_parallel_size=job["tp"], pipeline_model_parallel_size=job["pp"],
        virtual_pipeline_model_parallel_size=vp if vp > 1 else None, expert_model_parallel_size=job.get("ep", 1),
        expert_tensor_parallel_size=job.get("etp", job["tp"]), use_cpu_initialization=True, perform_initialization=False,
        num_layers_in_first_pipeline_stage=job.get("first"), gradient_accumulation_fusion=False, **moe, **job.get("model", {}))
    if isinstance(config.moe_layer_freq, list):   # layers of two kinds
        spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization=config.normalization)
    else:
        spec = get_gpt_layer_local_spec(num_experts=c["experts"] if job.get("moe") else None, moe_grouped_gemm=False,
                                        multi_latent_attention=latent, qk_layernorm=config.qk_layernorm,
                                        normalization=config.normalization)
    out = []
    for stage in range(vp):
        more = {"vp_stage": stage} if vp > 1 else {}
        if config.mtp_num_layers:
            more["mtp_block_spec"] = get_gpt_mtp_block_spec(config, spec, use_transformer_engine=False)
        pp, pp_rank = job["pp"], parallel_state.get_pipeline_model_parallel_rank()
        out.append(GPTModel(
            config, spec, vocab_size=padded(c["vocab"], c["div"], job["tp"]), max_sequence_length=c["seq"],
            pre_process=pp_rank == 0 and stage == 0, post_process=pp_rank == pp - 1 and stage == vp - 1,
            share_embeddings_and_output_weights=gpt2,
            position_embedding_type="learned_absolute" if gpt2 else "rope", **more).to(dtype))
    return config, out


def _stranger(config, order):
    """A module that no Megatron has, of two like parameters; `order`: in which they are saved."""
    from megatron.core.transformer.module import MegatronModule

    class Stranger(MegatronModule):
        def __init__(self):
            super().__init__(config=config)
            self.a = torch.nn.Linear(16, 16, bias=False, dtype=config.params_dtype)
            self.b = torch.nn.Linear(16, 16, bias=False, dtype=config.params_dtype)

        def sharded_state_dict(self, *args, **named):
            found = super().sharded_state_dict(*args, **named)
            return {key: found[key] for key in sorted(found, key=lambda k: k.split(".")[-2] in order[1:])}

    return Stranger()


def _built(job):
    """The chunks of this rank's model, each ready for training, and their optimizer."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    config, models = _models(job)
    for model in models:
        for layer in model.decoder.layers if "stranger" in job else ():
            layer.stranger = _stranger(config, job["stranger"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not any(part in name for part in job.get("frozen", ()))
    bucket = {"bucket_size": job["bucket"]} if job.get("bucket") else {}
    distributed = job.get("distributed", True)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=distributed, grad_reduce_in_fp32=True,
                                        overlap_grad_reduce=bool(bucket), **bucket)
    chunks = [DistributedDataParallel(config, ddp, m, disable_bucketing=v > 0) for v, m in enumerate(models)]
    optimizer = get_megatron_optimizer(
        OptimizerConfig(optimizer="adam", lr=1e-4, min_lr=1e-5, bf16=config.bf16, fp16=config.fp16,
                        params_dtype=config.params_dtype, use_distributed_optimizer=distributed,
                        initial_loss_scale=65536.0), chunks)
    return chunks, optimizer


def _rank_folder(job):
    from megatron.core import parallel_state
    rank = "mp_rank_%02d" % parallel_state.get_tensor_model_parallel_rank()
    if job["pp"] > 1:
        rank += "_%03d" % parallel_state.get_pipeline_model_parallel_rank()
    if job.get("ep", 1) > 1:
        rank += "_%03d" % parallel_state.get_expert_model_parallel_rank()
    return rank


def _load(job, folder):
    """Loads this rank's files as Megatron-LM does; tells {chunk/name: {"model", and flat "param", "exp_avg", "exp_avg_sq"}}."""
    chunks, optimizer = _built(job)
    rank = _rank_folder(job)
    files = os.path.join(job["folder"], job["iteration"], rank)
    state = torch.load(os.path.join(files, "model_optim_rng.pt"), weights_only=False)
    for v, chunk in enumerate(chunks):
        chunk.module.load_state_dict(state["model" if len(chunks) == 1 else f"model{v}"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    steps = set()
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for kept in part.optimizer.state.values():   # torch's own Adam keeps a step there, which this loader does not know
            steps.add(float(kept.pop("step")))
    optimizer.load_parameter_state(os.path.join(files, "distrib_optim.pt"))
    if job.get("again"):
        _save_again(job, state, chunks, optimizer, steps, rank)
    _tell(chunks, optimizer, steps, folder)


def _save_again(job, state, chunks, optimizer, steps, rank):
    """Saves what was loaded as Megatron-LM does, in the folder `again` of the job; `arguments` change `args`."""
    from megatron.core import parallel_state
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for kept in part.optimizer.state.values():
            kept["step"] = torch.tensor(*steps)
    for v, chunk in enumerate(chunks):
        state["model" if len(chunks) == 1 else f"model{v}"] = chunk.module.state_dict()
    state["optimizer"] = optimizer.state_dict()
    vars(state["args"]).update(job.get("arguments", {}))
    files = os.path.join(job["again"], job["iteration"], rank)
    os.makedirs(files, exist_ok=True)
    optimizer.save_parameter_state(os.path.join(files, "distrib_optim.pt"))
    if parallel_state.get_expert_data_parallel_rank() == 0:
        torch.save(state, os.path.join(files, "model_optim_rng.pt"))


def _sharded(job, chunks, optimizer, metadata, is_loading):
    from megatron.core import parallel_state
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    out = {}
    for v, chunk in enumerate(chunks):
        out["model" if len(chunks) == 1 else f"model{v}"] = chunk.module.sharded_state_dict(metadata=metadata)
    out["optimizer"] = optimizer.sharded_state_dict(dict(out), is_loading=is_loading, metadata=metadata)
    place = (parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_tensor_model_parallel_rank())
    rng = None if is_loading else [{"torch_rng_state": torch.get_rng_state(), "rank": torch.distributed.get_rank()}]
    replica = parallel_state.get_data_parallel_rank(with_context_parallel=True)
    if job.get("rng", True) == "each":   # newer versions, where there are several expert ranks
        out["rng_state"] = ShardedObject("rng_state", rng, (job["pp"], job["tp"], job["world"] // job["pp"] // job["tp"]),
                                         place + (replica,), replica_id=0)
    elif job.get("rng", True):
        out["rng_state"] = ShardedObject("rng_state", rng, (job["pp"], job["tp"]), place, replica_id=replica)
    return out


def _started(optimizer):
    """torch's own Adam has no states before its first step, and Megatron then cannot say what it wants to load."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups:
            for p in group["params"]:
                part.optimizer.state[p] = {"step": torch.tensor(0.), "exp_avg": torch.zeros_like(p.data),
                                           "exp_avg_sq": torch.zeros_like(p.data)}


@torch.no_grad()
def _fill(chunks, optimizer):
    """Random masters and moments, and the weights that the masters round to."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups:
            group["step"] = 120.0
            for p in group["params"]:
                part.optimizer.state[p]["step"].fill_(120)
    for v, chunk in enumerate(chunks):
        for name, buffer in chunk.module.named_buffers():
            if name.endswith("expert_bias"):
                buffer.copy_(torch.arange(float(buffer.numel())))
        for name, parameter in chunk.module.named_parameters():
            torch.manual_seed(_seed(v, name, parameter))
            if "layernorm" not in name or not parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape))
            for held, span in _held(optimizer, parameter):
                whole = parameter.float() * (1 + 2**-10 * torch.rand(parameter.shape))   # may round otherwise
                held["param"].copy_(whole.reshape(-1)[span].reshape(held["param"].shape))
                parameter.copy_(whole)
                for state in STATES[1:]:
                    held[state].copy_(torch.randn(held[state].shape))


def _seed(chunk, name, parameter):
    """The same on ranks that hold copies, another one on those that hold other parts."""
    from megatron.core import parallel_state as ps
    is_expert, is_table = ".experts." in name, "word_embeddings" in name
    is_cut = getattr(parameter, "tensor_model_parallel", False)
    tp = ps.get_expert_tensor_parallel_rank() if is_expert else ps.get_tensor_model_parallel_rank()
    place = (tp if is_cut else 0, ps.get_expert_model_parallel_rank() if is_expert else 0,
             (0, 0) if is_table else (ps.get_pipeline_model_parallel_rank(), chunk))
    return zlib.crc32(repr((name, place)).encode())


def _held(optimizer, parameter):
    """[(states of the parameter that this rank's optimizer has, the range they are of)]: one or none."""
    out = []
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if hasattr(part, "model_param_gbuf_map"):
            if parameter in part.model_param_gbuf_map:
                span = part._get_model_param_range_map(parameter)["param"]
                out.append((part._get_main_param_and_optimizer_states(parameter), slice(span.start, span.end)))
            continue
        for models, mains in zip(part.float16_groups, part.fp32_from_float16_groups):
            for model, main in zip(models, mains):
                if model is parameter:
                    out.append((dict(part.optimizer.state[main], param=main), slice(None)))
    return out


def _with_remainders():
    """As Transformer Engine's Adam tells masters of a precision-aware optimizer: the 16 bits behind those of the weight."""
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
    plain = DistributedOptimizer._get_main_param_and_optimizer_states

    def remaining(self, parameter):
        held, span = dict(plain(self, parameter)), self._get_model_param_range_map(parameter)["param"]
        weight = parameter.detach().reshape(-1)[span.start:span.end].view(torch.int16).int() << 16
        held["param"] = (held["param"].detach().reshape(-1).view(torch.int32) - weight).to(torch.int16)
        return held

    DistributedOptimizer._get_main_param_and_optimizer_states = remaining


def _make(job, folder):
    """Saves a fresh run with random values: whole tensors are told, so it is of one tensor and pipeline rank."""
    chunks, optimizer = _built(job)
    _started(optimizer)
    _fill(chunks, optimizer)
    if job.get("remainders"):
        _with_remainders()
    if job.get("again"):
        args = argparse.Namespace(**job["arguments"])
        _save_again(job, {"args": args, "iteration": 120, "checkpoint_version": 3.0}, chunks, optimizer, {120.0}, _rank_folder(job))
    _save_core(job, {"args": argparse.Namespace(**job["arguments"]), "iteration": 120, "checkpoint_version": 3.0},
               chunks, optimizer)
    found = {}
    for name, parameter in chunks[0].module.named_parameters():
        for held, span in _held(optimizer, parameter) or [({}, None)]:
            found[name] = {"model": parameter.detach().clone(), "span": span,
                           **{s: held[s].detach().clone() for s in STATES if s in held}}
    for name, buffer in chunks[0].module.named_buffers():
        if name.endswith("expert_bias"):
            found[name] = {"buffer": buffer.clone()}
    torch.save(found, os.path.join(folder, f"{torch.distributed.get_rank()}.pt"))


def _with_groups(metadata):
    from megatron.core import parallel_state
    return dict(metadata, dp_cp_group=parallel_state.get_data_parallel_group(with_context_parallel=True))


def _load_core(job, folder):
    """The same of Megatron-core's distributed checkpoints; `save` in the job then writes what was loaded anew."""
    from megatron.core import dist_checkpointing
    chunks, optimizer = _built(job)
    _started(optimizer)
    path = os.path.join(job["folder"], job["iteration"])
    common = dist_checkpointing.load_common_state_dict(path)
    vars(common["args"]).update(job.get("arguments", {}))
    metadata = _with_groups(common["content_metadata"])
    loaded = dist_checkpointing.load(_sharded(job, chunks, optimizer, metadata, True), path)
    for v, chunk in enumerate(chunks):
        chunk.module.load_state_dict(loaded["model" if len(chunks) == 1 else f"model{v}"], strict=True)
    if not job.get("distributed", True):
        optimizer.load_state_dict(loaded["optimizer"])
        return _save_core(job, common, chunks, optimizer)
    parts, steps = getattr(optimizer, "chained_optimizers", [optimizer]), set()
    for i, part in enumerate(parts):
        state = loaded["optimizer"] if len(parts) == 1 else loaded["optimizer"][i]
        tensors, kind = state.pop("param_state"), state["param_state_sharding_type"]
        part.load_state_dict(state)
        # torch's own Adam keeps a step beside the moments, which these loaders do not know.
        kept = [(s, s.pop("step")) for s in part.optimizer.state.values()]
        getattr(part, "load_parameter_state_from_" + kind)(tensors)
        for s, step in kept:
            steps.add(float(step))
            s["step"] = step
    _tell(chunks, optimizer, steps, folder)
    if job.get("save"):
        _save_core(job, common, chunks, optimizer)


def _save_core(job, common, chunks, optimizer):
    from megatron.core import dist_checkpointing, parallel_state
    from megatron.core.dist_checkpointing.serialization import get_default_save_sharded_strategy
    from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
    asked = job["save"]
    content = {"singleton_local_shards": asked.get("singleton", False), "chained_optim_avoid_prefix": True}
    if job.get("distributed", True):
        content["distrib_optim_sharding_type"] = asked["sharding"]
    state = _sharded(job, chunks, optimizer, _with_groups(content), False)
    for name in ("args", "iteration", "checkpoint_version"):
        state[name] = common[name]
    strategy = get_default_save_sharded_strategy("torch_dist")
    if asked.get("parallel"):
        strategy = FullyParallelSaveStrategyWrapper(
            strategy, parallel_state.get_data_parallel_group(with_context_parallel=True))
    if torch.distributed.get_rank() == 0:
        os.makedirs(asked["folder"])
    torch.distributed.barrier()
    dist_checkpointing.save(state, asked["folder"], strategy, content_metadata=content)


def _tell(chunks, optimizer, steps, folder):
    from megatron.core import parallel_state
    found = {}
    for v, chunk in enumerate(chunks):
        for name, parameter in chunk.module.named_parameters():
            for part in getattr(optimizer, "chained_optimizers", [optimizer]):
                if parameter not in part.model_param_gbuf_map:
                    continue
                span = part._get_model_param_range_map(parameter)["param"]   # this data parallel rank's part
                held = part._get_main_param_and_optimizer_states(parameter)
                found[f"{v}/{name}"] = {
                    "model": parameter.detach().clone(), "steps": steps, "range": (span.start, span.end),
                    **{state: held[state].detach().clone().reshape(-1) for state in STATES}}
    place = {"tp": parallel_state.get_tensor_model_parallel_rank(),
             "pp": parallel_state.get_pipeline_model_parallel_rank(),
             "ep": parallel_state.get_expert_model_parallel_rank(),
             "etp": parallel_state.get_expert_tensor_parallel_rank(), "found": found}
    torch.save(place, os.path.join(folder, f"{torch.distributed.get_rank()}.pt"))


def _gpt_of(args):
    """The model that Megatron-LM builds of the arguments of a checkpoint of one rank, in fp32, to compute on the CPU."""
    import dataclasses
    import torch.nn.functional as F
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import TransformerConfig
    said = lambda name, absent=None: getattr(args, name, absent)
    known = {f.name for f in dataclasses.fields(TransformerConfig)} - {"params_dtype", "bf16", "fp16"}
    settings = {name: value for name, value in vars(args).items() if name in known} | dict(
        layernorm_epsilon=args.norm_epsilon, gated_linear_unit=args.swiglu, activation_func=F.silu if args.swiglu else F.gelu,
        bias_activation_fusion=bool(not args.swiglu and args.bias_gelu_fusion), num_moe_experts=said("num_experts"),
        num_query_groups=args.num_query_groups if args.group_query_attention else None, use_cpu_initialization=True,
        perform_initialization=False, gradient_accumulation_fusion=False, masked_softmax_fusion=False, persist_layer_norm=False,
        attention_dropout=0.0, hidden_dropout=0.0, moe_token_dispatcher_type="allgather", moe_grouped_gemm=False)
    config = TransformerConfig(**settings)
    spec = get_gpt_layer_local_spec(num_experts=config.num_moe_experts, moe_grouped_gemm=False, qk_layernorm=config.qk_layernorm,
                                    normalization=config.normalization)
    return GPTModel(config, spec, vocab_size=args.padded_vocab_size, max_sequence_length=args.max_position_embeddings,
                    share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
                    position_embedding_type=args.position_embedding_type, rotary_base=int(said("rotary_base", 10000)),
                    rope_scaling=said("use_rope_scaling", False), rope_scaling_factor=said("rope_scaling_factor", 8.0)).float().eval()


@torch.no_grad()
def _compute(job, folder):
    """{file: what its model makes of the tokens}."""
    import contextlib
    from megatron.core.transformer import dot_product_attention
    from megatron.core.transformer.moe import moe_utils
    tracker = argparse.Namespace(fork=lambda *_: contextlib.nullcontext())   # of random states of a GPU
    dot_product_attention.tensor_parallel.get_cuda_rng_tracker = lambda *_, **__: tracker
    moe_utils.te_general_gemm = None
    tokens = job["compute"]
    places = torch.arange(tokens.shape[1]).expand(tokens.shape)
    mask = torch.ones(1, 1, tokens.shape[1], tokens.shape[1]).triu(1).bool()
    out = {}
    for file in job["files"]:
        saved = torch.load(file, weights_only=False)
        model = _gpt_of(saved["args"])
        model.load_state_dict(saved["model"], strict=True)
        out[file] = model(tokens, places, mask)
    torch.save(out, os.path.join(folder, "0.pt"))


def _with_latent_attention():
    """Megatron-core's own attention computes no latent one: enough of it for the model to be built."""
    from megatron.core.transformer import multi_latent_attention
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    plain = DotProductAttention.__init__
    DotProductAttention.__init__ = lambda self, *args, k_channels=None, v_channels=None, **named: plain(self, *args, **named)
    multi_latent_attention.TELinear = type("TELinear", (), {})


def _rank_main(rank, job, folder):
    torch.set_num_threads(1)
    without_cuda()
    if job.get("model", {}).get("multi_latent_attention"):
        _with_latent_attention()
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: F401
    meeting.join(rank, job["world"], folder)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=job["tp"], pipeline_model_parallel_size=job["pp"],
        virtual_pipeline_model_parallel_size=job.get("vp", 1) if job.get("vp", 1) > 1 else None,
        expert_model_parallel_size=job.get("ep", 1), expert_tensor_parallel_size=job.get("etp", job["tp"]))
    (_compute if "compute" in job else _make if job.get("make") else _load_core if job.get("core") else _load)(job, folder)
    torch.distributed.destroy_process_group()


def load(job):
    """[{"tp", "pp", "ep", "etp", "found"}] of every rank: what Megatron has after it loaded a checkpoint."""
    mp.get_context("forkserver").set_forkserver_preload(["megatron.core.models.gpt", "megatron.core.optimizer"])
    with tempfile.TemporaryDirectory(prefix="megatron-") as folder:
        mp.start_processes(_rank_main, (job, folder), nprocs=job["world"], start_method="forkserver")
        if not job.get("distributed", True) and not job.get("make"):
            return []
        return [torch.load(os.path.join(folder, f"{r}.pt"), weights_only=False) for r in range(job["world"])]
