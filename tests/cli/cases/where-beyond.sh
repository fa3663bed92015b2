# An equation that 64 bits do not hold, or that divides by 0, is refused, not left out.
model="$DATA/torch/hf_llama_gqa/model"
printf 'ucl 1\nwhere n = 9223372036854775807 + 1\nlayout l over tp { "model.norm.weight" [n]  "**" replicate }\n' >large.ucl
uckpt convert "$model" out.h5 --spec large.ucl
printf 'ucl 1\nwhere m = 0, n = 8 / m\nlayout l over tp { "model.norm.weight" [n]  "**" replicate }\n' >zero.ucl
uckpt check zero.ucl "$model"
