# A pipeline over other stages, and what none can be cut into.
set -e
in="$DATA/deepspeed/pipe-pp2-dp2/ckpt"
uckpt convert -q "$in" pp3 --to deepspeed --layout pp=3,dp=1
ls pp3/global_step3
uckpt convert -q "$in" uneven --to deepspeed --layout pp=3,dp=1 --stages 1,4,1
uckpt inspect uneven | grep -i -e mesh -e pipeline
uckpt extract pp3 fp32/3.mlp.dense_h_to_4h.weight -o a.npy >extracted && uckpt extract "$in" fp32/3.mlp.dense_h_to_4h.weight -o b.npy >extracted
cmp a.npy b.npy
refuse() { uckpt convert -q "$in" x --to deepspeed "$@" || echo "exit $?"; }
refuse --layout pp=7
refuse --layout pp=2 --stages 1,2,3
refuse --layout pp=2 --stages 2,2
refuse --layout pp=2 --stages 6,0
refuse --layout pp=0
refuse --layout zero=2
refuse --layout ep=2
uckpt convert -q "$DATA/deepspeed/zero1-dp2/ckpt" x --to deepspeed --layout pp=2 || echo "exit $?"
uckpt convert -q "$DATA/deepspeed/zero1-dp2/ckpt" x --to deepspeed --stages 1,2 || echo "exit $?"
uckpt convert -q "$in" x.h5 --stages 1,2 || echo "exit $?"
ls -A
