# What a spec or a flag says must be heard by something: what is misspelt is refused, with the name that is near.
in="$DATA/torch/megatron_llama_tp_pp/legacy"
uckpt convert "$in" hf --to safetensors --as hf --set vocb=101
uckpt convert "$in" hf --to safetensors --as hf --set tp=2
uckpt check megatron/llama "$in" --set vocb=101
printf 'ucl 1\nlayout l over tp { "**" replicate }\n' >bare.ucl
uckpt convert "$in" out.h5 --spec bare.ucl --set n=4
model="$DATA/torch/hf_llama_gqa/model"
block() { printf 'ucl 1\nlayout l over tp { "**" replicate }\nconvert { %s }\n' "$1" >block.ucl; uckpt convert -q "$model" "${2:-out.h5}" --spec block.ucl; }
block 'drop "**.inv_freq"'
block 'drop "lm_head.*", "model.nurm.weight"'
block 'dtype fp32 for "model.norm.wait"  dtype bf16'
block 'dtype keep for "nothing"'
block 'drop "lm_head.*"  dtype keep for "model.norm.weight"  dtype bf16' && uckpt ls out.h5 | tail -1
# Errors of the block go before the question what to write.
block 'to hdf5 as zz' out
block 'dtype zz' out
# An error is told before a warning.
printf 'ucl 1\nwhere unused = 3\nlayout l over tp { "**" [9] }\n' >warned.ucl
uckpt convert "$model" out2.h5 --spec warned.ucl
