# The target's half: which file gets which box of which tensor, what is cast, and what is proved of it.
in="$DATA/deepspeed/bf16-zero2-dp2/ckpt"
uckpt plan --device cpu "$in" out --to deepspeed --layout dp=3,zero=3 --dtype fp16 | grep -v ^memory >page
sed -n '/^SAVE/q;p' page
sed -n '/^UCPINFO/,$p' page
echo "== a tensor parallel target"
uckpt plan "$DATA/deepspeed/autotp2-zero1-dp2/ckpt" out --to deepspeed | sed -n '/^UCPINFO/,$p'
echo "== one file"
uckpt plan "$in" out.h5 | sed -n '/^UCPINFO/,$p'
echo "== many files"
uckpt plan "$in" out --to deepspeed-universal | sed -n '/^UCPINFO/,$p' | tail -3
echo "== all of it"
uckpt plan -v "$in" out --to deepspeed --layout dp=3,zero=3 | sed -n '/^global_step4.*rank_2.*optim/,$p' | head -5
uckpt plan --json --device cpu "$in" out --to deepspeed --layout dp=3,zero=3 | python3 -c '
import json, sys
plan = json.load(sys.stdin)
shards, files = plan["shards"], plan["files"]
sizes = dict(bf16=2, fp32=4, i64=8, bool=1)
for n, shard in enumerate(shards):   # the holes that are no copies tile every shard
    at = 0
    for first, count in sorted((h["first"], h["count"]) for f in files for h in f["holes"] if h["shard"] == n and "copy" not in h):
        assert first == at, shard
        at += count
    assert at == shard["elements"], shard
for f in files:   # nothing in a file meets
    taken = sorted([(h["offset"], h["count"] * sizes[h["dtype"]]) for h in f["holes"]] + [(x["offset"], x["bytes"]) for x in f["fixed"]])
    assert all(a + n <= b for (a, n), (b, _) in zip(taken, taken[1:])), f["file"]
    assert taken[-1][0] + taken[-1][1] <= f["bytes"]
print(len(files), len(shards), sorted(plan))'
