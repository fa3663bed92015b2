# Rules drafted with the shapes of a whole model; corrected where only a person knows, they give that model again.
"$DATA/../cli/without_info.py" "$DATA/deepspeed/zero1-tp2-dp2/ckpt" ckpt
uckpt convert -q "$DATA/deepspeed/zero1-tp2-dp2/ckpt" whole.h5
uckpt infer --like whole.h5 ckpt | tee rules.ucl
sed -e '/layernorm.bias"/s/ ?/ partial mean over tp/' \
    -e '/qkv.weight"/s/\[d0@tp, ...\]/[(q: 12@tp | k: 4@tp | v: 4@tp), ...]/' \
    -e '/h_to_4h.weight"/s/\[d0@tp, ...\]/[(gate: f@tp | up: f@tp), ...]/' rules.ucl > corrected.ucl
uckpt convert -q --spec corrected.ucl ckpt joined.h5
uckpt ls -a --json whole.h5 | python3 -c 'import json, sys
for t in json.load(sys.stdin)["tensors"]: print(t["state"] + "/" + t["name"])' > names
while read -r name; do
  uckpt extract whole.h5 "$name" -o - > a.npy && uckpt extract joined.h5 "$name" -o - > b.npy && cmp a.npy b.npy
done < names
wc -l < names
