# The same input plans to the same text whatever the number of threads, but for the memory.
uckpt plan -j 1 "$DATA/deepspeed/zero3-dp2/ckpt" out.h5 | grep -v ^memory > one.txt
uckpt plan -j 8 "$DATA/deepspeed/zero3-dp2/ckpt" out.h5 | grep -v ^memory > eight.txt
cmp one.txt eight.txt && echo same
