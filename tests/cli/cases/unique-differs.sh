# A rule that says `unique` or `opaque` of a tensor that is cut over ranks would lose all but one rank's part.
in="$DATA/torch/megatron_llama_tp_pp/legacy"
cat > unique.ucl <<'END'
ucl 1
layout l over ep, etp, pp, tp, vp {
    "embedding.word_embeddings.weight" unique
    "**" drop
}
END
uckpt check unique.ucl "$in"
uckpt convert -q --spec unique.ucl "$in" out.h5 || echo "exit $?"
sed s/unique/opaque/ unique.ucl > opaque.ucl
uckpt convert -q --spec opaque.ucl "$in" out.h5 || echo "exit $?"
ls
