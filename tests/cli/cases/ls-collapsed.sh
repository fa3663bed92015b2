# Layer numbers are collapsed unless -a is given.
uckpt ls "$DATA/torch/hf_llama_gqa/model"
