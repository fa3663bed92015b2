# Masters that are kept in 16 bits become fp32 in DeepSpeed's files: that is said.
uckpt convert -q --dtype bf16 "$DATA/deepspeed/bf16-zero2-dp2/ckpt" narrow.h5
for kind in "deepspeed --layout dp=1" deepspeed-universal; do
  uckpt plan narrow.h5 new --to $kind 2>&1 | grep masters
  uckpt plan "$DATA/deepspeed/bf16-zero2-dp2/ckpt" new --to $kind 2>&1 | grep -c masters
done
true
