# Experts over other ranks, and what DeepSpeed cannot train.
set -e
in="$DATA/deepspeed/moe-ep2-zero1-dp4/ckpt"
uckpt convert -q "$in" ep4 --to deepspeed --layout ep=4,zero=2
ls ep4/global_step3
refuse() { uckpt convert -q "$in" x --to deepspeed "$@" || echo "exit $?"; }
refuse --layout ep=3,dp=3
refuse --layout ep=2,dp=3
refuse --layout zero=3
refuse --layout pp=2
ls -A
