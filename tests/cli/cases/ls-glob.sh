uckpt ls -a "$DATA/deepspeed/zero1-dp2/ckpt::*fc1*"
