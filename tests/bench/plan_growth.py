"""How planning grows with the number of fragments, 10^4 to 10^7; and 100,000 tensors in one HDF5 file.

Usage: plan_growth.py [--json FILE] [--largest N] [--runs N]

A fragment is what one rank of a ZeRO-3 checkpoint holds of one state of one parameter; the largest model has a trillion
parameters on 4,096 ranks. Checkpoints are made once, in build/bench, of sparse files. UCKPT names the binary.
"""
import argparse
import json
import os
import shutil
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "cli"), HERE]
os.environ["DS_ACCELERATOR"] = "cpu"

import tool   # noqa: E402

CACHE = os.path.join(tool.ROOT, "build", "bench")
STATES, PARAMETERS = 3, 814
RANKS = (4, 41, 410, 4096)   # 10^4, 10^5, 10^6, 10^7 fragments
TENSORS, TENSOR_BYTES = 100_000, 256


def fragments_of(ranks):
    return ranks * PARAMETERS * STATES


def checkpoint(ranks):
    """A ZeRO-3 checkpoint of these ranks, each with the same share: 244 million parameters, of all 814."""
    folder = os.path.join(CACHE, f"plan-zero3-{ranks}x{PARAMETERS}")
    if not os.path.exists(os.path.join(folder, "latest")):
        import many_ranks   # slow: it needs DeepSpeed
        many_ranks.make(folder, ranks, PARAMETERS, 3, round(547 * ranks ** 0.5))
    return folder


def measured(command, runs):
    """(least seconds, least peak MiB) of a command that must succeed."""
    seconds, peaks = [], []
    for _ in range(runs):
        begun = time.monotonic()
        code, peak, _ = tool.peak_memory(command)
        seconds.append(time.monotonic() - begun)
        peaks.append(peak)
        if code:
            sys.exit(f"{command}: exit {code}")
    return min(seconds), min(peaks)


def plan_row(ranks, runs=1, arguments=()):
    """One row of the table; `arguments` say what else is made than an HDF5 file: ("--to", "deepspeed", …)."""
    out = os.path.join(CACHE, "out-plan" + ("" if arguments else ".h5"))   # never made
    seconds, peak = measured([tool.binary(), "plan", *arguments, checkpoint(ranks), out], runs)
    fragments = fragments_of(ranks)
    return {"ranks": ranks, "fragments": fragments, "seconds": round(seconds, 3), "peak_mib": round(peak, 1),
            "bytes_a_fragment": round(peak * 2**20 / fragments, 1)}


def plan_growth(largest=10**7, runs=1, arguments=()):
    """Rows for 10^4 fragments up to about `largest`."""
    return [plan_row(ranks, runs, arguments) for ranks in RANKS if fragments_of(ranks) <= largest * 1.01]


def many_tensors(count=TENSORS):
    """A safetensors file of `count` tensors of 256 bytes."""
    path = os.path.join(CACHE, f"tensors-{count}.safetensors")
    if os.path.exists(path):
        return path
    os.makedirs(CACHE, exist_ok=True)
    header = {f"model.layers.{i // 100}.part{i % 100}.weight":
              {"dtype": "F32", "shape": [TENSOR_BYTES // 4], "data_offsets": [i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES]}
              for i in range(count)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(b"".join(struct.pack("<f", n % 65521) for n in range(count * TENSOR_BYTES // 4)))
    os.rename(path + ".part", path)
    return path


def hdf5_rows(count=TENSORS, runs=1):
    """Seconds and MiB to make an HDF5 file of `count` tensors, to list it, and to write the tensors back."""
    folder = os.path.join(CACHE, "out-hdf5")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    source, made, back = many_tensors(count), os.path.join(folder, "made.h5"), os.path.join(folder, "back.safetensors")
    convert = [tool.binary(), "convert", "-q", "-f", "-j", "2"]
    rows = []
    for what, command in (("create and commit", [*convert, source, made]),
                          ("create, --no-sync", [*convert, "--no-sync", source, made]),
                          ("inspect", [tool.binary(), "inspect", made]),
                          ("read back", [*convert, "--no-sync", made, back])):
        seconds, peak = measured(command, runs)
        rows.append({"what": what, "tensors": count, "seconds": round(seconds, 3), "peak_mib": round(peak, 1)})
    shutil.rmtree(folder)
    return rows


def print_plan(rows):
    print(f"{'fragments':>10} {'ranks':>6} {'seconds':>8} {'peak MiB':>9} {'bytes a fragment':>17}")
    for row in rows:
        print(f"{row['fragments']:>10} {row['ranks']:>6} {row['seconds']:>8.2f} {row['peak_mib']:>9.0f} "
              f"{row['bytes_a_fragment']:>17.0f}")


def print_hdf5(rows):
    print(f"{rows[0]['tensors']} tensors in one HDF5 file")
    for row in rows:
        print(f"  {row['what']:<18} {row['seconds']:>6.2f} s {row['peak_mib']:>6.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="also write all numbers there")
    parser.add_argument("--largest", metavar="N", type=float, default=1e7, help="fragments at most (default 10^7)")
    parser.add_argument("--runs", metavar="N", type=int, default=1, help="the best of N")
    args = parser.parse_args()
    plan, hdf5 = plan_growth(int(args.largest), args.runs), hdf5_rows(runs=args.runs)
    print_plan(plan)
    print()
    print_hdf5(hdf5)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"plan": plan, "hdf5": hdf5}, file, indent=1)


if __name__ == "__main__":
    main()
