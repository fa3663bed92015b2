"""Trains a small Llama one step under DeepSpeed's AutoTP on CPU; run as a program: autotp.py FOLDER KIND.

The learning rate is 0, so the fp32 masters are the weights the model began with; the first moments are a tenth of the
gradients, which one process without DeepSpeed computes again.
"""
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import deepspeed_kinds

# world, tp, ZeRO stage, attention heads, heads of keys and values, vocabulary
KINDS = {
    "gqa": (2, 2, 1, 4, 2, 50),
    "gqa-dp2-zero2": (4, 2, 2, 6, 3, 51),      # an uneven number of key heads and of rows
    "uneven-heads": (2, 2, 1, 3, 3, 50),
    "fewer-groups-than-ranks": (4, 4, 1, 4, 2, 50),   # ranks without attention heads: boxes that no shape says
}


def model(heads, groups, vocabulary):
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=24, intermediate_size=34, num_hidden_layers=2,
                                        max_position_embeddings=16, num_attention_heads=heads,
                                        num_key_value_heads=groups, tie_word_embeddings=False)).float()


def _batch():
    torch.manual_seed(7)
    return torch.randint(0, 50, (2, 8))


def _rank_main(rank, kind, folder, sizes):
    _, tp, stage, heads, groups, vocabulary = sizes
    deepspeed_kinds.meet(rank, kind, folder)
    import deepspeed
    llama = model(heads, groups, vocabulary)
    config = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 1, "steps_per_print": 10**9,
              "gradient_clipping": 1e6, "zero_optimization": {"stage": stage}, "tensor_parallel": {"autotp_size": tp},
              "optimizer": {"type": "AdamW", "params": {"lr": 0.0, "weight_decay": 0.0, "torch_adam": True}}}
    engine = deepspeed.initialize(model=llama, config=config, model_parameters=llama.parameters())[0]
    ids = _batch()
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
    engine.save_checkpoint(os.path.join(folder, "ckpt"))
    dist.barrier()
    dist.destroy_process_group()


def _truth(sizes):
    llama = model(*sizes[3:])
    ids = _batch()
    llama(input_ids=ids, labels=ids).loss.backward()
    tensors = {f"fp32/{name}": p.detach().clone() for name, p in llama.named_parameters()}
    tensors.update({f"exp_avg/{name}": p.grad / 10 for name, p in llama.named_parameters()})
    return tensors


def main(folder, name):
    sizes = KINDS[name]
    os.makedirs(folder)
    context = mp.start_processes(_rank_main, (deepspeed_kinds.Kind(name, world=sizes[0]), folder, sizes), nprocs=sizes[0],
                                 join=False, start_method="fork")
    while not context.join(timeout=5):
        pass
    save_file(_truth(sizes), os.path.join(folder, "expected.safetensors"))


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    main(*sys.argv[1:])
