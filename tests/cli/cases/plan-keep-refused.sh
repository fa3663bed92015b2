# Plans that are not what would be done now: every one is refused before a byte is written.
cp -rp "$DATA/deepspeed/bf16-zero2-dp2/ckpt" ckpt
uckpt plan -o plan.json ckpt out --to deepspeed --layout dp=3,zero=3 >page
plan() { uckpt convert -q --plan "$1" || echo "exit $?"; }
edit() {
  sed "$1" plan.json >edited.json
  cmp -s plan.json edited.json && echo "nothing edited"
  plan edited.json
}
edit 's/"plan": 1,/"plan": 2,/'
edit 's/"uckpt 0.1.0"/"uckpt 0.0.9"/'
edit 's/dp=3,zero=3/dp=2,zero=3/'
edit 's/"--layout=dp=3,zero=3", //'
edit 's/"--layout=dp=3,zero=3"/"--force"/'
edit 's/"--layout=dp=3,zero=3"/"--layout", "dp=3,zero=3"/'
edit 's/"--", "ckpt", "out"/"--"/'
edit '0,/"offset": 10752/s//"offset": 10760/'
edit '0,/"from": [0-9]*/s//"from": 18446744073709551615/'
edit '0,/"from": [0-9]*/s//"from": -1/'
edit '0,/"from": [0-9]*/s//"from": 1e3/'
edit '0,/"crc64": "/s//"crc64": "0/'
edit '/^  {"shard": 7,/d'
edit 's/"warnings": \[\]/"warnings": ["x"]/'
edit 's/"files_in"/"uckpt"/'
for size in 0 1 100 5000 $(($(wc -c <plan.json) - 3)); do head -c "$size" plan.json >short.json && plan short.json; done
echo '{"uckpt": 1}' >other.json && plan other.json
python3 -c 'print("[" * 100000)' >deep.json && plan deep.json
echo "== a source that changed"
file=$(echo ckpt/global_step*/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt)
cp -p "$file" kept && touch -d 2001-02-03T04:05:06.000000007Z "$file" && plan plan.json
printf x >>"$file" && plan plan.json
cp -p kept "$file" && plan plan.json && ls
