# Own rules above `use` override shipped ones, which then take nothing: that is no error.
in="$DATA/torch/megatron_llama_tp_pp/legacy"
cat > layout.ucl <<'END'
ucl 1
import "megatron/llama"
layout mine over pp, vp, tp {
    index i @(vp, pp) local
    "decoder.final_layernorm.weight" replicate  on pp last on vp last
    use megatron_llama
}
END
uckpt convert -q --spec layout.ucl --naming mine --states fp32 "$in" out.h5
uckpt ls "out.h5::decoder.final*"
cat > map.ucl <<'END'
ucl 1
import "megatron/llama"
map megatron_llama <-> mine {
    "decoder.final_layernorm.weight" <-> "norm"
    use megatron_llama <-> hf_llama
}
END
uckpt convert -q --spec map.ucl --naming megatron_llama --as mine --states fp32 "$in" there.h5
uckpt ls "there.h5::norm"
uckpt convert -q --spec map.ucl --naming mine --as megatron_llama there.h5 back.h5
uckpt ls "back.h5::decoder.final*"
