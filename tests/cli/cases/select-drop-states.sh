uckpt convert -q --select 'blocks.0.*' --drop '*.bias' --states fp32,exp_avg "$DATA/deepspeed/zero1-dp2/ckpt" out.h5
uckpt ls -a out.h5
# A pattern that matches nothing is misspelt: the output would be another one than was asked for.
for flags in "--drop nomatch" "--select emb.weight --select fp32/nomatch" "--dtype bf16:embweight" "--drop emb.weigth"; do
  uckpt convert -q "$DATA/deepspeed/bf16-zero2-dp2/ckpt" none.h5 $flags || echo "exit $?"
done
ls none.h5 2>/dev/null || echo nothing
