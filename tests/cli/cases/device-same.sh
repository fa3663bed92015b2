# Where it is computed decides no byte, and is no part of a plan that is kept.
in="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt convert -q "$in" auto.safetensors
uckpt convert -q --device cpu "$in" cpu.safetensors
cmp auto.safetensors cpu.safetensors && echo same
uckpt plan --device cpu -o plan.json "$in" out.safetensors 2>/dev/null | grep -c ^device
grep -c '"device' plan.json
uckpt convert -q --plan plan.json --device auto
cmp auto.safetensors out.safetensors && echo same
# What a machine with a device adds to a plan is not held against it.
sed 's/^ "warnings"/ "device": "cuda:0", "device_why": "cuda:0 takes 1.0 s, the CPU would take 9.0 s",\n "warnings"/' plan.json >other.json
grep -c '"device' other.json
uckpt convert -q -f --plan other.json && cmp auto.safetensors out.safetensors && echo same
