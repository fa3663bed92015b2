# A limit that is reached is named, with how far it can be raised, where it can be.
python3 - <<'PY'
import zipfile
with zipfile.ZipFile("deep.pt", "w") as z:
    z.writestr("deep/data.pkl", b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".")
    z.writestr("deep/version", b"3\n")
PY
uckpt ls deep.pt
echo "exit $?"
uckpt inspect deep.pt
uckpt ls --json deep.pt 2>&1 | grep -o '"hint": .*'
uckpt ls --limit depth=2000 deep.pt
# What a plan could not tell again is not kept.
cp "$DATA/torch/pt_shapes/zip.pt" "$(printf 'a\377.pt')"
uckpt plan "$(printf 'a\377.pt')" out.h5 -o plan.json
echo "exit $?"
test -e plan.json || echo no plan
