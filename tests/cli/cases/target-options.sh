# What a kind of output cannot do is refused; the type asked for is the module's, also where the master has it.
in="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
for to in hdf5 torch deepspeed deepspeed-universal; do
  uckpt convert -q "$in" out --to $to --shard-size 1M || echo "exit $?"
done
ls -A
uckpt convert -q "$in" fp32 --to deepspeed --dtype fp32 && uckpt inspect fp32 | grep '^module weights'
uckpt convert -q "$in" some --to deepspeed --dtype 'fp32:norm.*' && uckpt inspect some | grep '^module weights'
uckpt convert -q "$in" same --to deepspeed && uckpt inspect same | grep '^module weights'
