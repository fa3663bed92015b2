# Tensor parallel shards need a layout to be merged: said before anything is written.
uckpt convert -q "$DATA/deepspeed/zero1-tp2-dp2/ckpt" out.h5
code=$?
ls
exit $code
