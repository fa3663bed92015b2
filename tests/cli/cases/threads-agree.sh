# Any number of threads and any memory bound give the same bytes of data.
set -e
in="$DATA/deepspeed/bf16-zero3-dp2/ckpt"
uckpt convert -q -j 1 "$in" one.h5
uckpt convert -q -j 7 --max-mem 64M "$in" seven.h5
cmp one.h5 seven.h5
