"""Times `uckpt convert` against cp and the converters of DeepSpeed and PyTorch; see scripts/bench --help."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "cli"), os.path.join(HERE, "..", "interop"), HERE]
os.environ["DS_ACCELERATOR"] = "cpu"

import tool          # noqa: E402
import many_ranks    # noqa: E402
from large import large_checkpoint, size_of   # noqa: E402
from large_dcp import large_dcp, weight_names   # noqa: E402

CACHE = os.path.join(tool.ROOT, "build", "bench")
OUT = os.path.join(CACHE, "out")


def warm_memory(gib):
    """Touches and frees memory: the first touch of fresh pages can cost more than any copy."""
    block = bytearray(gib << 30)
    del block


def clean():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)


def timed(command):
    """Seconds of a whole process, its output thrown away; the files it wrote are removed untimed."""
    clean()
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, shell=isinstance(command, str))
    seconds = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stderr.decode()[-2000:]}")
    clean()
    return seconds


def memory(command):
    """(peak resident, peak anonymous) MiB of one more, untimed run."""
    clean()
    peaks = tool.peak_memory(command)[1:]
    clean()
    return peaks


def commands(source):
    convert = [tool.binary(), "convert", "-q", "-j", "2", source, os.path.join(OUT, "out.h5")]
    copy = ["cp", "-r", source, os.path.join(OUT, "copy")]
    sync = " ".join(copy) + f" && sync -f {OUT}"
    return {"cp -r": copy, "uckpt --no-sync": [*convert, "--no-sync"], "cp -r, then sync": sync, "uckpt": convert}


def peers(source):
    tag = os.path.join(source, open(os.path.join(source, "latest")).read().strip())
    return {"ds_to_universal": [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", tag,
                                "--output_folder", os.path.join(OUT, "universal"), "--inject_missing_state",
                                "--num_extract_workers", "2", "--num_merge_workers", "2"],
            "zero_to_fp32": [sys.executable, "-m", "deepspeed.utils.zero_to_fp32", source, os.path.join(OUT, "fp32")]}


def alternate(table, rounds, gib):
    """name → seconds of each round; the order rotates so that none always follows the same one."""
    names, seconds = list(table), {name: [] for name in table}
    for turn in range(rounds):
        warm_memory(gib)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            seconds[name].append(timed(table[name]))
    return seconds


def bench_stage(stage, args):
    source = large_checkpoint(CACHE, stage, args.gigabytes)
    timed(["cp", "-r", source, os.path.join(OUT, "copy")])   # brings the input into the page cache
    seconds = alternate(commands(source), args.rounds, args.warm)
    if not args.no_peers:
        seconds.update(alternate(peers(source), args.peer_rounds, args.warm))
    resident, anonymous = memory(commands(source)["uckpt"])
    rows = rows_of(seconds)
    synced = statistics.median(seconds["cp -r, then sync"])
    rows["uckpt"]["ratio_to_synced_cp"] = rows["uckpt"]["median_s"] / synced
    return {"stage": stage, "bytes": size_of(source), "rows": rows, "peak_rss_mib": resident,
            "peak_anonymous_mib": anonymous}


def rows_of(seconds):
    base = statistics.median(seconds["cp -r"])
    return {name: {"median_s": statistics.median(times), "min_s": min(times), "rounds": len(times),
                   "ratio_to_cp": statistics.median(times) / base} for name, times in seconds.items()}


def bench_dcp(kind, args):
    """Distributed checkpoints of eight files: `torch`, as dcp.save writes them, or `hf`, Hugging Face shards."""
    source = large_dcp(CACHE, args.gigabytes, kind == "hf")
    own = {f"uckpt to {to}": [tool.binary(), "convert", "-q", "-j", "2", "--no-sync", source, os.path.join(OUT, f"out.{end}")]
           for to, end in (("hdf5", "h5"), ("safetensors", "safetensors"))}
    mapping = {name: 1 for name in weight_names(args.gigabytes)}
    peer = {"torch": {"dcp_to_torch_save": [sys.executable, "-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch",
                                            source, os.path.join(OUT, "out.pt")]},
            "hf": {"torch's consolidation": [sys.executable, "-c", f"""
import os
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
os.makedirs({OUT!r} + "/hf")
consolidate_safetensors_files({source!r}, {OUT!r} + "/hf", {mapping!r}, num_threads=2)"""]}}[kind]
    copy = {"cp -r": ["cp", "-r", source, os.path.join(OUT, "copy")]}
    timed(copy["cp -r"])   # brings the input into the page cache
    seconds = alternate({**copy, **own}, args.rounds, args.warm)
    if not args.no_peers:
        seconds.update(alternate(peer, args.peer_rounds, args.warm))
    table = {**own, **({} if args.no_peers else peer)}
    rows = rows_of(seconds)
    for name, command in table.items():
        rows[name]["peak_rss_mib"], rows[name]["peak_anonymous_mib"] = memory(command)
    return {"kind": kind, "bytes": size_of(source), "rows": rows}


def bench_safety(to, args):
    """What digests, the journal and syncing cost: the default against `--no-verify --no-sync`, and each alone."""
    source = large_checkpoint(CACHE, 2, args.gigabytes)
    plain = [tool.binary(), "convert", "-q", "-j", "2", "--to", to, source, os.path.join(OUT, "out")]
    table = {"neither": [*plain, "--no-verify", "--no-sync"], "digests": [*plain, "--no-sync"],
             "sync": [*plain, "--no-verify"], "both (default)": plain}
    timed(plain)   # brings the input into the page cache
    seconds = alternate(table, args.rounds, args.warm)
    base = statistics.median(seconds["neither"])
    rows = {name: {"median_s": statistics.median(times), "min_s": min(times), "rounds": len(times),
                   "ratio_to_neither": statistics.median(times) / base} for name, times in seconds.items()}
    return {"to": to, "bytes": size_of(source), "rows": rows}


def bench_plan(stage, args):
    source = many_ranks.make(os.path.join(CACHE, f"ranks1024-zero{stage}"), 1024, 1000, stage)
    command = [tool.binary(), "plan", source, os.path.join(OUT, "out.h5")]
    seconds = [timed(command) for _ in range(3)]
    resident, anonymous = memory(command)
    return {"stage": stage, "median_s": statistics.median(seconds), "min_s": min(seconds), "peak_rss_mib": resident,
            "peak_anonymous_mib": anonymous}


def print_stage(entry):
    print(f"\nZeRO-{entry['stage']}, {entry['bytes'] / 1e9:.2f} GB, -j 2, warm cache")
    print(f"  {'':18} {'median':>9} {'min':>9} {'x cp':>7}")
    for name, row in entry["rows"].items():
        print(f"  {name:18} {row['median_s']:8.2f}s {row['min_s']:8.2f}s {row['ratio_to_cp']:7.2f}")
    print(f"  uckpt against `cp -r, then sync`: {entry['rows']['uckpt']['ratio_to_synced_cp']:.2f}; peak memory "
          f"{entry['peak_rss_mib']:.0f} MiB resident, {entry['peak_anonymous_mib']:.0f} MiB anonymous", flush=True)


def print_dcp(entry):
    print(f"\nDCP ({entry['kind']}), 8 files, {entry['bytes'] / 1e9:.2f} GB, -j 2, warm cache, no sync")
    print(f"  {'':22} {'median':>9} {'min':>9} {'x cp':>7} {'peak resident':>15} {'anonymous':>13}")
    for name, row in entry["rows"].items():
        peaks = f"{row['peak_rss_mib']:11.0f} MiB {row['peak_anonymous_mib']:9.0f} MiB" if "peak_rss_mib" in row else ""
        print(f"  {name:22} {row['median_s']:8.2f}s {row['min_s']:8.2f}s {row['ratio_to_cp']:7.2f} {peaks}")


def print_safety(entry):
    print(f"\nDigests and sync, ZeRO-2 to {entry['to']}, {entry['bytes'] / 1e9:.2f} GB, -j 2, warm cache")
    print(f"  {'':18} {'median':>9} {'min':>9} {'x neither':>10}")
    for name, row in entry["rows"].items():
        print(f"  {name:18} {row['median_s']:8.2f}s {row['min_s']:8.2f}s {row['ratio_to_neither']:10.2f}", flush=True)


def print_plan(entry):
    print(f"\nuckpt plan, ZeRO-{entry['stage']}, 1,024 ranks x 1,000 parameters: {entry['median_s']:.2f} s, "
          f"{entry['peak_rss_mib']:.0f} MiB resident", flush=True)


def measured(measure, show, stages, args):
    """Each stage's numbers, shown as soon as they are there."""
    entries = []
    for stage in stages:
        entries.append(measure(stage, args))
        show(entries[-1])
    return entries


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer-rounds", type=int, default=2)
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--plan-stages", type=int, nargs="*", default=[1, 3])
    parser.add_argument("--dcp", nargs="*", choices=["torch", "hf"], default=["torch", "hf"],
                        help="which distributed checkpoints")
    parser.add_argument("--safety", nargs="*", choices=["hdf5", "dcp", "torch", "deepspeed-universal"], default=["hdf5", "dcp"],
                        help="kinds of output to measure the cost of digests and syncing with")
    parser.add_argument("--warm", type=int, default=4, help="GiB of memory touched before each round")
    parser.add_argument("--no-peers", action="store_true", help="leave the converters of DeepSpeed and PyTorch out")
    args = parser.parse_args()
    os.makedirs(CACHE, exist_ok=True)
    report = {"stages": measured(bench_stage, print_stage, args.stages, args),
              "dcp": measured(bench_dcp, print_dcp, args.dcp, args),
              "safety": measured(bench_safety, print_safety, args.safety, args),
              "plans": measured(bench_plan, print_plan, args.plan_stages, args)}
    clean()
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
