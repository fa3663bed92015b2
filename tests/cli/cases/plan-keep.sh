# A plan that is kept, and done exactly: it names paths as they were typed, so it can be carried out elsewhere.
cp -rp "$DATA/deepspeed/bf16-zero2-dp2/ckpt" ckpt
uckpt plan -o plan.json ckpt out --to deepspeed --layout dp=3,zero=3 --drop 'buffer/*' >page
uckpt plan --json ckpt out --to deepspeed --layout dp=3,zero=3 --drop 'buffer/*' | grep -v peak_memory >again && grep -v peak_memory plan.json | cmp - again
uckpt convert -q -j 1 --max-mem 64M --plan plan.json
uckpt convert -q ckpt plain --to deepspeed --layout dp=3,zero=3 --drop 'buffer/*' && diff -r plain out && echo same
mkdir elsewhere && mv ckpt elsewhere/moved && uckpt convert -q --plan plan.json elsewhere/moved second && diff -r plain second && echo same
python3 -c 'import json; json.dump(json.load(open("plan.json")), open("spaced.json", "w"), indent=3)'
uckpt convert -q --plan spaced.json elsewhere/moved third && diff -r plain third && echo same
uckpt convert -n --plan plan.json elsewhere/moved fourth | head -2
echo "== refused"
mv elsewhere/moved ckpt
uckpt plan -o plan.json ckpt out >page || echo "exit $?"
uckpt convert --plan plan.json || echo "exit $?"
uckpt convert --plan plan.json --layout dp=2 || echo "exit $?"
uckpt convert --plan plan.json ckpt || echo "exit $?"
uckpt convert --plan nowhere.json || echo "exit $?"
