# Our own file is an input like any other.
set -e
uckpt convert -q "$DATA/deepspeed/zero3-dp4-subgroups/ckpt" one.h5
uckpt convert -q one.h5 two.h5
uckpt ls -a one.h5 > one.txt
uckpt ls -a two.h5 > two.txt
cmp one.txt two.txt
