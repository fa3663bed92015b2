uckpt plan "$DATA/deepspeed/zero2-dp3/ckpt" out.h5 > plan.txt && test -s plan.txt
uckpt convert -n "$DATA/deepspeed/zero2-dp3/ckpt" out.h5 > convert-n.txt
cmp plan.txt convert-n.txt
ls
