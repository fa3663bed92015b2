# By hand: 5.5 - 5 = 0.5, of 5.5 that is 0.0909091; NaN equals NaN; -0 and 0 are other bits of one number.
python3 - <<'PYTHON'
import json, struct

def save(path, **tensors):
    header, data = {}, b""
    for name, (dtype, shape, numbers) in tensors.items():
        body = struct.pack("<%d%s" % (len(numbers), {"F32": "f", "I64": "q"}[dtype]), *numbers)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    head = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)

nan = float("nan")
save("a.safetensors", w=("F32", [2, 3], [1, 2, 3, 4, 5, 6]), b=("F32", [3], [0.5, -0.0, nan]), n=("I64", [2], [2**62, 3]),
     shape=("F32", [2], [1, 2]), type=("F32", [1], [1]), gone=("F32", [1], [1]))
save("b.safetensors", w=("F32", [2, 3], [1, 2, 3, 4, 5.5, 6]), b=("F32", [3], [0.5, 0.0, nan]), n=("I64", [2], [2**62 + 1, 3]),
     shape=("F32", [1, 2], [1, 2]), type=("I64", [1], [1]), new=("F32", [1], [1]))
PYTHON
uckpt diff a.safetensors b.safetensors
echo "exit $?"
uckpt diff --atol 0 --select b a.safetensors b.safetensors
echo "exit $?"
uckpt diff --rtol 0.1 --select w --select n a.safetensors b.safetensors
echo "exit $?"
uckpt diff -q --select w a.safetensors b.safetensors
echo "exit $?"
uckpt diff --map 'gone=new' --select gone a.safetensors b.safetensors
echo "exit $?"
uckpt diff --map '{x:*}_=gone' a.safetensors b.safetensors
echo "exit $?"
uckpt diff --json --select w a.safetensors b.safetensors
echo "exit $?"
