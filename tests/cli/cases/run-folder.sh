# A run's folder, whose steps are checkpoints: the last one is named.
mkdir -p run/checkpoint-5 run/checkpoint-10 run/logs
cp "$DATA"/torch/hf_llama_gqa/model/* run/checkpoint-5
cp "$DATA"/torch/hf_llama_gqa/model/* run/checkpoint-10
uckpt inspect run
echo "exit $?"
