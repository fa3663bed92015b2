# A distributed checkpoint is cut over dp and tp; what it cannot hold is refused with the way out.
in="$DATA/torch/dcp_fsdp2_adamw/ckpt"
uckpt convert -q "$in" out --to dcp --layout dp=3 && ls -A out && uckpt inspect out | grep '^placement'
uckpt convert -q "$in" small --to dcp --layout dp=2 --shard-size 40K && ls -A small
uckpt convert -q "$in" hf --to dcp-hf --layout dp=2 --states param --shard-size 2K && ls -A hf && uckpt inspect hf | grep '^kind'
for flags in '--layout dp=2,zero=1' '--layout dp=0' '--layout dp=2,pp=2' '--stages 1,2' '--layout tp=2' '--missing zero'; do
  uckpt convert -q "$in" no --to dcp $flags || echo "exit $?"
done
uckpt convert -q "$DATA/deepspeed/zero2-dp3/ckpt" no --to dcp --states exp_avg || echo "exit $?"
uckpt convert -q "$in" no --to dcp-hf --states step --drop '*' || echo "exit $?"
uckpt convert -q "$DATA/deepspeed/zero2-dp3/ckpt" no --to dcp-hf --missing zero || echo "exit $?"
ls -A
