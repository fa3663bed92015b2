uckpt convert -q --select 'blocks.0.*' --drop '*.bias' --states fp32,exp_avg "$DATA/deepspeed/zero1-dp2/ckpt" out.h5
uckpt ls -a out.h5
