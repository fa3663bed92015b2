in="$DATA/deepspeed/zero2-dp3/ckpt"
uckpt convert -q "$in" out.h5
uckpt verify out.h5
uckpt verify out.h5 --against "$in" | sed 's/.*; //'
uckpt sum out.h5 -o sums.txt
uckpt verify --sample 1% --seed 7 --against sums.txt out.h5 | sed 's/, .* read/, … read/'
uckpt verify "$DATA/torch/pt_shapes/expected.safetensors" | sed "s/.*; //"
# A flipped bit in a tensor, and one in the manifest.
cp out.h5 bad.h5
python3 - <<'PY'
import struct, subprocess
# The bytes of /fp32/gain, found by the value that extract gives.
subprocess.run(["uckpt", "extract", "out.h5", "fp32/gain", "-o", "gain.npy"], check=True, stdout=subprocess.DEVNULL)
body = open("gain.npy", "rb").read()[128:]
data = bytearray(open("bad.h5", "rb").read())
assert data.count(body) == 1
data[data.find(body)] ^= 1
open("bad.h5", "wb").write(data)
PY
uckpt verify bad.h5
echo "exit $?"
uckpt verify bad.h5 --against sums.txt
echo "exit $?"
sed 's/^\(crc64:\)................\(.*weight.gain\)$/\10000000000000000\2/' sums.txt > wrong.txt
uckpt verify out.h5 --against wrong.txt
echo "exit $?"
uckpt verify --json --seed 7 bad.h5
echo "exit $?"
sed -i '5s/$/ and more/; 7s/crc64/crc65/' wrong.txt
uckpt verify out.h5 --against wrong.txt
echo "exit $?"
uckpt verify --sample 5 out.h5
echo "exit $?"
# Masters and weights are told apart by one of the two alone.
uckpt convert -q --to dcp out.h5 out.dcp
uckpt verify -q out.h5 --against out.dcp --states fp32,exp_avg && uckpt verify -q out.dcp --against out.h5 --states param && echo "right both ways"
