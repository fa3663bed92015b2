# Rules drafted from the fragments alone: what shapes and values cannot tell is a `?`, which is refused.
"$DATA/../cli/without_info.py" "$DATA/deepspeed/zero1-tp2-dp2/ckpt" ckpt
uckpt convert ckpt out.h5
uckpt infer ckpt | tee rules.ucl
uckpt check rules.ucl >/dev/null 2>&1; echo "check: $?"
uckpt fmt --check rules.ucl && echo canonical
