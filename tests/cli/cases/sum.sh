# One manifest for every format and layout of the same tensors, and of what a conversion writes.
in="$DATA/deepspeed/zero2-dp3/ckpt"
uckpt sum "$in" > in.txt
uckpt convert -q --manifest h5.txt "$in" out.h5
uckpt convert -q --to dcp --manifest dcp.txt out.h5 out.dcp
uckpt convert -q --to deepspeed --layout dp=2,zero=1 --manifest deepspeed.txt out.h5 out.deepspeed
uckpt sum -j 1 out.h5 | cmp - in.txt && uckpt sum out.dcp | cmp - in.txt && uckpt sum out.deepspeed | cmp - in.txt && echo "the same in four"
cmp h5.txt in.txt && cmp dcp.txt in.txt && cmp deepspeed.txt in.txt && echo "and as they were written"
head -n 1 in.txt
grep -c '^crc64:' in.txt
uckpt sum --select gain --states fp32 "$in"
uckpt sum --select gain --states fp32 --sha256 --json "$in"
uckpt sum "$in" -o in.txt
