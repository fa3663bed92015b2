# The root (through `latest`), the step's folder and one file inside are all ways to name a checkpoint, of any format.
set -e
root="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt convert -q "$root" a.h5
uckpt convert -q "$root/global_step4" b.h5
uckpt ls -a a.h5 > a.txt
uckpt ls -a b.h5 > b.txt
cmp a.txt b.txt
uckpt ls -a "$root/global_step4/mp_rank_00_model_states.pt" | grep -q emb.weight

# As many tensors by each file as by the folder, with the same bytes. `same FOLDER FILE...`
same() {
  local folder="$1"; shift
  uckpt sum "$folder" | sort > folder.txt
  for file in "$@"; do
    uckpt sum "$folder/$file" | sort > file.txt
    cmp folder.txt file.txt
  done
}
step=iter_0000120
ranks="$DATA/torch/megatron_llama_tp_pp/legacy"
core="$DATA/torch/megatron_llama_tp_pp/torch_dist_dp_reshardable"
same "$ranks" $step/mp_rank_01_000/model_optim_rng.pt $step/mp_rank_00_001/distrib_optim.pt latest_checkpointed_iteration.txt
same "$core" $step/common.pt $step/metadata.json $step/.metadata $step/__1_0.distcp
same "$DATA/torch/dcp_fsdp2_adamw/ckpt" .metadata __2_0.distcp
(cd "$ranks/$step/mp_rank_01_000" && uckpt ls model_optim_rng.pt) | tail -1
uckpt ls --from torch "$ranks/$step/mp_rank_01_000/model_optim_rng.pt" | tail -1  # where the file itself is meant

# A shard of a model is a file of its own right: it is read, and that it is one is said.
uckpt ls "$DATA/torch/hf_llama_gqa/model/model-00001-of-00002.safetensors" | tail -1
uckpt ls "$DATA/torch/hf_llama_gqa/model/model.safetensors.index.json" | tail -1

# Files of other programs, and of a save that never ended.
mkdir -p other unfinished
echo '{}' > other/metadata.json
touch unfinished/__0_0.distcp
uckpt ls other/metadata.json || echo "exit $?"
uckpt ls unfinished/__0_0.distcp || echo "exit $?"
