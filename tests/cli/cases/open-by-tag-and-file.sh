# The root (through `latest`), the tag folder and one file inside are all ways to name a checkpoint.
set -e
root="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt convert -q "$root" a.h5
uckpt convert -q "$root/global_step4" b.h5
uckpt ls -a a.h5 > a.txt
uckpt ls -a b.h5 > b.txt
cmp a.txt b.txt
uckpt ls -a "$root/global_step4/mp_rank_00_model_states.pt" | grep -q emb.weight
