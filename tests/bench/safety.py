"""What digests, the journal and syncing cost: the default against `--no-verify --no-sync`, each alone, and the disk alone."""
import math
import os
import statistics

import inputs
import runner
import tool
from goals import summary

KINDS = ("hdf5", "dcp")
NEITHER, BOTH, DISK = "neither", "both (default)", "the disk alone"
BLOCK = 4 << 20


def about(to):
    return f"digests and sync, ZeRO-2 to {to}"


def _commands(to, source, out, size):
    plain = [tool.binary(), "convert", "-q", "-j", "2", "--to", to, source, os.path.join(out, "out")]
    return {NEITHER: [*plain, "--no-verify", "--no-sync"], "digests": [*plain, "--no-sync"],
            "sync": [*plain, "--no-verify"], BOTH: plain,
            DISK: ["dd", "if=/dev/zero", f"of={out}/zeros", "bs=4M", f"count={math.ceil(size / BLOCK)}", "oflag=direct",
                   "conv=fdatasync"]}


def _size_written(to, source, place):
    """Bytes of the output, which the disk cannot take faster than at its own speed."""
    out = os.path.join(place.out, "out")
    runner.quiet([tool.binary(), "convert", "-q", "-j", "2", "--no-sync", "--to", to, source, out])
    size = inputs.bytes_of(out)
    place.clean()
    return size


def measure(to, place, cache, args):
    source = inputs.make("zero2", cache, args.gigabytes)
    size = _size_written(to, source, place)
    table = {name: runner.Measured(command) for name, command in _commands(to, source, place.out, size).items()}
    runner.alternate(table, inputs.files_of(source), place, "warm", args.rounds, args.warm)
    commands = summary(table, NEITHER)
    medians = {name: statistics.median(measured.seconds["warm"]) for name, measured in table.items()
               if measured.seconds["warm"]}
    entry = {"name": f"safety-{to}", "to": to, "bytes": size, "commands": commands}
    if all(name in medians for name in (NEITHER, DISK, BOTH)):
        entry["both_to_floor"] = medians[BOTH] / max(medians[NEITHER], medians[DISK])
    return entry


def show(entry):
    print(f"\n{entry['name']}: {about(entry['to'])}, {entry['bytes'] / 1e9:.2f} GB written, warm cache")
    print(f"  {'':22} {'median':>9} {'min':>9} {'x neither':>10}")
    for name, row in entry["commands"].items():
        if "warm" in row:
            ratio = f"{row['warm']['ratio']:10.2f}" if "ratio" in row["warm"] else ""
            print(f"  {name:22} {row['warm']['median_s']:8.2f}s {row['warm']['min_s']:8.2f}s {ratio}")
        if "error" in row:
            print(f"  {name:22} FAILED: {row['error']}")
    if "both_to_floor" in entry:
        print(f"  the default is {entry['both_to_floor']:.2f} x the slower of `{NEITHER}` and `{DISK}`", flush=True)
