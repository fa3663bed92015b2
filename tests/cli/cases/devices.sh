# What there is depends on the machine; that the CPU is measured, and nothing left behind, does not.
uckpt devices --no-probe
echo "== rates"
uckpt devices | sed -n '/^GB/,$p'
echo "== JSON"
uckpt devices --json --no-probe
uckpt devices --json | python3 -c '
import json, sys
answer = json.load(sys.stdin)
assert bool(answer["devices"]) != ("why_none" in answer)
rates = dict(answer["cpu"])
assert rates.pop("threads") >= 1 and all(r > 1e6 for r in rates.values())
print(answer["uckpt"], *rates)'
ls -A
