"""A GPT-2 in fp32 as transformers saves it: safetensors files of half a gigabyte at most, their index, config.json."""
import json
import os

import torch
from safetensors.torch import save_file

from kept import kept

WIDTH, HEAD, VOCABULARY, POSITIONS, FILES = 1024, 64, 8192, 1024, 4


def shapes_of(gigabytes):
    """Of each file, name → shape."""
    ends = {"wte.weight": (VOCABULARY, WIDTH), "wpe.weight": (POSITIONS, WIDTH), "ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    block = {"ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,), "attn.c_attn.weight": (WIDTH, 3 * WIDTH),
             "attn.c_attn.bias": (3 * WIDTH,), "attn.c_proj.weight": (WIDTH, WIDTH), "attn.c_proj.bias": (WIDTH,),
             "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,), "mlp.c_fc.weight": (WIDTH, 4 * WIDTH),
             "mlp.c_fc.bias": (4 * WIDTH,), "mlp.c_proj.weight": (4 * WIDTH, WIDTH), "mlp.c_proj.bias": (WIDTH,)}
    layers = max(FILES, round(gigabytes * 1e9 / (4 * 12 * WIDTH * WIDTH)))
    files = [{f"h.{i}.{name}": shape for i in range(layers) if i * FILES // layers == file for name, shape in block.items()}
             for file in range(FILES)]
    files[0] = {**ends, **files[0]}
    return layers, files


def large_hf(cache, gigabytes):
    """The folder of a model of about that size; made on first use, a file at a time."""
    def fill(folder):
        os.makedirs(folder)
        layers, files = shapes_of(gigabytes)
        index = {}
        for n, shapes in enumerate(files):
            torch.manual_seed(n)
            name = f"model-{n + 1:05d}-of-{FILES:05d}.safetensors"
            save_file({key: torch.randn(shape) for key, shape in shapes.items()}, os.path.join(folder, name), {"format": "pt"})
            index.update(dict.fromkeys(shapes, name))
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
            json.dump({"metadata": {}, "weight_map": index}, file)
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({"model_type": "gpt2", "architectures": ["GPT2Model"], "n_embd": WIDTH, "n_layer": layers,
                       "n_head": WIDTH // HEAD, "n_inner": None, "n_positions": POSITIONS, "vocab_size": VOCABULARY,
                       "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
                       "scale_attn_by_inverse_layer_idx": False}, file)
    return kept(os.path.join(cache, f"hf-{gigabytes:g}GB"), fill)
