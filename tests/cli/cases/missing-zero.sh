# What a DeepSpeed checkpoint has and the input lacks: refused by name, or made up where that is asked for.
weights="$DATA/torch/hf_llama_gqa/model"
echo 'ucl 1
layout llama over tp {
    "model.embed_tokens.weight"           replicate
    "model.layers.{i}.self_attn.*.weight" replicate
    "model.layers.{i}.mlp.*.weight"       replicate
    "model.layers.{i}.*norm.weight"       replicate
    "model.norm.weight"                   replicate
    "lm_head.weight"                      replicate
}' >llama.ucl
native() { uckpt convert -q "$@" --to deepspeed --layout dp=2,zero=3 || echo "exit $?"; }
native "$weights" new
uckpt convert -q "$weights" new --to deepspeed-universal || echo "exit $?"
native "$weights" new --missing zero
native "$weights" new --missing one
uckpt convert -q "$weights" new.h5 --missing zero || echo "exit $?"
echo "== weights alone"
uckpt convert -q "$weights" universal --to deepspeed-universal --missing zero
native "$weights" new --missing zero --spec llama.ucl
uckpt plan "$weights" plan --to deepspeed --layout dp=2,zero=3 --missing zero --spec llama.ucl >page
sed -n '/^SAVE/q;p' page | grep -v memory
for from in universal new; do uckpt ls "$from" | tail -1; done
for state in fp32 exp_avg step; do
  for from in universal new; do uckpt extract "$from" "$state/model.layers.1.mlp.up_proj.weight" -o - | cksum; done | uniq | wc -l
done
uckpt extract new "exp_avg_sq/lm_head.weight" -o zero.npy -f >said && tail -c +129 zero.npy | tr -d '\0' | wc -c
uckpt extract --raw "$weights" param/lm_head.weight -o raw.npy -f >said && uckpt convert -q --states fp32 --dtype bf16 new back.h5 && uckpt extract --raw back.h5 fp32/lm_head.weight -o bits.npy -f >said && cmp raw.npy bits.npy && echo same
echo "== a checkpoint that lost its states"
in="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt convert -q "$in" weights.h5 --states fp32,param,buffer
native weights.h5 lost
native weights.h5 lost --missing zero && uckpt ls lost | tail -1
uckpt convert -q "$in" partly.h5 --drop 'exp_avg/norm.weight'
native partly.h5 partly
native partly.h5 partly --missing zero && uckpt ls partly | tail -1
echo "== nothing was missing"
native "$in" all --missing zero
native "$in" plain && diff -r plain all && echo same
uckpt convert -q "$weights" fp16 --to deepspeed --spec llama.ucl --layout zero=3 --dtype fp16 --missing zero || echo "exit $?"
