# A program's `convert` block says what flags say: kinds, namings, states, what is dropped.
cat > rules.ucl <<'UCL'
ucl 1
layout ours { "**" replicate }
map ours <-> theirs { "{x:**}" <-> "model.{x}" }
convert {
    from deepspeed as ours
    to   hdf5      as theirs
    drop "model.blocks.{i}.**"
    states fp32, exp_avg
}
UCL
uckpt convert --spec rules.ucl "$DATA/deepspeed/zero2-dp3/ckpt" out && uckpt ls -a "out::*"
uckpt convert -q --states step --spec rules.ucl "$DATA/deepspeed/zero2-dp3/ckpt" steps.h5 && uckpt ls "steps.h5::*emb*"
echo 'convert { to nothing }' | cat <(head -n 3 rules.ucl) - > other.ucl
uckpt convert --spec other.ucl "$DATA/deepspeed/zero2-dp3/ckpt" other.h5
echo 'convert { from torch }' | cat <(head -n 3 rules.ucl) - > other.ucl
uckpt convert --spec other.ucl "$DATA/deepspeed/zero2-dp3/ckpt" other.h5
echo 'convert { to safetensors as theirs  dtype keep for "model.pos"  dtype bf16 }' | cat <(head -n 3 rules.ucl) - > types.ucl
uckpt convert -q --spec types.ucl "$DATA/deepspeed/zero2-dp3/ckpt" types.safetensors
uckpt ls types.safetensors::model.pos; uckpt ls "types.safetensors::*emb*"; uckpt ls "types.safetensors::*inv*"
