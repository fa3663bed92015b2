# Settings that change what is computed are translated, or refused by name.
cp -r "$DATA/torch/hf_llama_gqa/model" llama; cp -r "$DATA/torch/hf_gpt2_tied/model" gpt2
sed 's/"model_type": "llama"/"model_type": "mistral", "sliding_window": 4096/' "$DATA/torch/hf_llama_gqa/model/config.json" >llama/config.json
uckpt convert -q llama mistral.h5 --as megatron_llama; echo "exit $?"
uckpt convert -q mistral.h5 back --to safetensors --as hf_llama; echo "exit $?"
grep -E 'model_type|sliding_window' back/config.json
sed 's/"mlp_bias": false/"mlp_bias": true/' "$DATA/torch/hf_llama_gqa/model/config.json" >llama/config.json
uckpt convert -q llama out.h5 --as megatron_llama; echo "exit $?"
sed 's/"reorder_and_upcast_attn": false/"reorder_and_upcast_attn": true/' "$DATA/torch/hf_gpt2_tied/model/config.json" >gpt2/config.json
uckpt convert -q gpt2 out.h5 --as megatron_gpt2; echo "exit $?"
