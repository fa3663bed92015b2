# Rules drafted over several axes: which ranks lack a tensor is one thing, along which axis it differs another.
torch="$DATA/torch"
uckpt convert -q "$torch/megatron_llama_tp_pp/legacy" whole.h5
uckpt infer --like whole.h5 "$torch/megatron_llama_tp_pp/legacy"
uckpt infer "$torch/megatron_llama_tp_pp/legacy" | grep -v layers
uckpt convert -q "$torch/megatron_moe_ep/legacy" experts.h5
uckpt infer --like experts.h5 "$torch/megatron_moe_ep/legacy" | grep experts
# Followed, where only the layers are left to a person.
sed -n -e '1,/^layout/p' -e '/pp first\|pp last/p' -e '$i "**" drop' -e '$p' <(uckpt infer --like whole.h5 "$torch/megatron_llama_tp_pp/legacy") > rules.ucl
uckpt convert -q --spec rules.ucl "$torch/megatron_llama_tp_pp/legacy" joined.h5
uckpt diff --drop '**.layers.**' whole.h5 joined.h5
# A tensor parallel model alone: an axis of one rank is never cut. Megatron's files of one stage.
uckpt convert -q "$torch/megatron_llama_tp_pp/legacy" tp --to megatron --layout pp=1
uckpt infer --like whole.h5 tp | tee rules.ucl
uckpt check rules.ucl tp
