# To another number of ranks and another stage and back: the same tensors, the same files on any number of threads.
set -e
in="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt convert -q "$in" there --to deepspeed --layout dp=3,zero=3
uckpt convert -q -j 5 --max-mem 64M "$in" again --to deepspeed --layout dp=3,zero=3
diff -r there again
uckpt convert -q there back --to deepspeed --layout dp=2,zero=2
ls back back/global_step4
for name in fp32/blocks.0.qkv.weight exp_avg/emb.weight exp_avg_sq/norm.bias param/pos; do
  for from in "$in" there back; do uckpt extract "$from" "$name" -o one.npy -f >extracted && cksum <one.npy; done | uniq | wc -l
done
uckpt convert -q "$in" there --to deepspeed || echo "exit $?"
mkdir -p mine && touch mine/diary
uckpt convert -q -f "$in" mine --to deepspeed || echo "exit $?"
uckpt convert -q -f "$in" there --to deepspeed && ls there/global_step4
uckpt convert -q "$in" x.h5 --layout dp=3 || echo "exit $?"
for layout in DP=3,zer=3 vp=2 dp=2,etp=1; do uckpt convert -q "$in" x --to deepspeed --layout $layout || echo "exit $?"; done
uckpt convert -q "$in" tp2 --to deepspeed --layout tp=2 || echo "exit $?"
ls -A
