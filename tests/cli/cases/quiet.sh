# -q: nothing at all is said when all goes well.
uckpt convert -q "$DATA/deepspeed/zero1-dp2/ckpt" out.h5
