# Renaming needs a spec, a naming of it, and names that its maps take.
uckpt convert --as hf_llama "$DATA/deepspeed/zero1-dp2/ckpt" out.h5; echo "exit $?"
uckpt plan --spec megatron/llama --as hf_lama "$DATA/deepspeed/zero1-dp2/ckpt" out.h5; echo "exit $?"
cat >mine.ucl <<'UCL'
ucl 1
layout ours { "**" replicate }
map ours <-> theirs {
    "blocks.{i}.qkv.{p:*}" <-> "layers.{i}.qkv.{p}"
    "gone" <-> "lost"
}
UCL
uckpt check mine.ucl "$DATA/deepspeed/zero1-dp2/ckpt" --as theirs; echo "exit $?"
uckpt convert --spec mine.ucl --as theirs "$DATA/deepspeed/zero1-dp2/ckpt" out.h5; echo "exit $?"
uckpt ls --spec mine.ucl --as theirs "$DATA/deepspeed/zero1-dp2/ckpt" | tail -n 2
ls
