# By hand, of -1, 0, 3 and 1e-40 (denormal): mean 0.5, std 1.5, norm √10. Of 3-4i and 0: 5 and 0. Infinities and NaNs count for none.
python3 - <<'PYTHON'
import json, struct

inf, nan = float("inf"), float("nan")
tensors = {"t": ("F32", [6], "6f", [-1, 0, 3, 1e-40, nan, inf]), "n": ("I64", [2], "2q", [-2**63, 2**63 - 1]),
           "flags": ("BOOL", [2, 2], "4B", [1, 1, 1, 0]), "z": ("C64", [2], "4f", [3, -4, 0, 0]), "empty": ("F32", [0, 3], "", []),
           "none": ("F64", [2], "2d", [nan, -inf])}
header, data = {}, b""
for name, (dtype, shape, code, numbers) in tensors.items():
    body = struct.pack("<" + code, *numbers)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
    data += body
head = json.dumps(header).encode()
with open("a.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(head)) + head + data)
PYTHON
uckpt stats a.safetensors
echo "exit $?"
uckpt stats -q --fail-on nan,denormal a.safetensors
echo "exit $?"
uckpt stats -q --fail-on nan --select n a.safetensors
echo "exit $?"
uckpt stats --json --select t --select n --select empty a.safetensors
echo "exit $?"
uckpt stats --fail-on nans a.safetensors
echo "exit $?"
