# How the chunks of a distributed checkpoint lay over the ranks that saved them: rules that fit its tensors.
uckpt infer "$DATA/torch/dcp_tp_fsdp2_uneven/ckpt" | tee rules.ucl
uckpt check rules.ucl "$DATA/torch/dcp_tp_fsdp2_uneven/ckpt"
uckpt fmt --check rules.ucl && echo canonical
