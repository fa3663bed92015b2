# What is no tensor in a distributed checkpoint is shown by its keys.
uckpt inspect --metadata "$DATA/torch/dcp_fsdp2_adamw/ckpt" | sed -n '/^# extra/,$p'
