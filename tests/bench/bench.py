"""Times `uckpt convert` against copies, the frameworks' converters and plain Python scripts; see scripts/bench."""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "cli"), os.path.join(HERE, "..", "interop"), HERE]
os.environ["DS_ACCELERATOR"] = "cpu"

import goals      # noqa: E402
import inputs     # noqa: E402
import plans      # noqa: E402
import plot       # noqa: E402
import rivals     # noqa: E402
import runner     # noqa: E402
import safety     # noqa: E402
import table      # noqa: E402
import tool       # noqa: E402
from rows import ROWS, SYNCED   # noqa: E402

CACHE = os.path.join(tool.ROOT, "build", "bench")
# Beside the rows, what has another table: name → what measures it, what shows it, and the input, if it has one of ours.
SECTIONS = {**{f"safety-{to}": (safety, to, "zero2") for to in safety.KINDS},
            **{name: (plans, name, None) for name in plans.SECTIONS}}


def commands_of(row, source, copied, out, no_peers):
    """name → what is timed, in the order of the table."""
    def all_of(*flags):
        return runner.Measured(
            [tool.binary(), "convert", "-q", "-j", "2", source, os.path.join(out, row.out), *row.flags, *flags])
    made = {goals.COPY: runner.Measured(rivals.copy(copied, out))}
    if row.synced:
        made["two cp"] = runner.Measured(rivals.two_copies(copied, out))
        made["dd"] = runner.Measured(rivals.dd(copied, out))
    made[goals.OURS] = all_of("--no-sync")
    if row.synced:
        made[goals.COPY_SYNCED] = runner.Measured(rivals.copy_and_sync(copied, out))
        made[goals.OURS_SYNCED] = all_of()
    for name in () if no_peers else row.rivals:
        made[name] = runner.Measured(rivals.RIVALS[name].command(source, out), rivals.RIVALS[name].slow)
    return made


def output_of(row, source, folder):
    """The row's output, kept to be copied."""
    path = os.path.join(folder, row.out)
    runner.quiet([tool.binary(), "convert", "-q", "-j", "2", "--no-sync", source, path, *row.flags])
    return path


def measure(row, place, args):
    source = inputs.make(row.input, CACHE, args.gigabytes)
    kept = tempfile.mkdtemp(prefix="out-", dir=CACHE)
    try:
        output = None if row.copies == "input" else output_of(row, source, kept)
        copied = output if row.copies == "output" else source
        made = commands_of(row, source, copied, place.out, args.no_peers)
        if row.copies == "both":
            made[goals.COPY_OUTPUT] = runner.Measured(rivals.copy(output, place.out))
        files = inputs.files_of(source) + (inputs.files_of(output) if output else [])
        runner.alternate(made, files, place, "warm", args.rounds, args.warm)
        if args.cold:
            runner.alternate(made, files, place, "cold", min(args.rounds, 3), args.warm)
        for measured in made.values():
            measured.weigh(place)
        commands = goals.summary(made, goals.COPY)
        return {"name": row.name, "about": row.about, "bytes": inputs.bytes_of(copied), "rivals": list(row.rivals),
                "commands": commands, "goals": goals.verdicts(row, commands, SYNCED)}
    finally:
        shutil.rmtree(kept)


def has_failed(entry):
    return bool(entry.get("error")) or any("error" in command for command in entry.get("commands", {}).values())


def measured(names, place, args):
    """Each row's and section's numbers, shown as soon as they are there; what fails is told."""
    report = {"rows": [], "sections": []}
    table.header(args.cold)
    for name in names:
        try:
            if name in ROWS:
                report["rows"].append(measure(ROWS[name], place, args))
                table.show(report["rows"][-1], args.cold)
            else:
                module, what, _ = SECTIONS[name]
                report["sections"].append(module.measure(what, place, CACHE, args))
                module.show(report["sections"][-1])
        except Exception as problem:   # whatever one row met, the others go on
            report["rows" if name in ROWS else "sections"].append({
                "name": name, "about": name, "rivals": [], "commands": {}, "goals": [], "error": f"{problem}"})
            print(f"{name}: FAILED: {type(problem).__name__}: {problem}", flush=True)
    return report


def say_needs(names, args):
    """How much disk this takes: what is to be made, and three outputs at once, which DeepSpeed's own converter has."""
    wanted = {ROWS[name].input if name in ROWS else SECTIONS[name][2] for name in names} - {None}
    missing = inputs.missing_of(wanted, CACHE, args.gigabytes)
    need = (1.1 * len(missing) + 3) * args.gigabytes
    free = shutil.disk_usage(CACHE).free / 1e9
    print(f"{len(names)} rows, {len(missing)} of {len(wanted)} inputs to be made ({', '.join(missing) or 'none'}): needs "
          f"{need:.1f} GB of disk, {free:.1f} GB free", flush=True)
    if need > free:
        sys.exit("bench: too little disk: take fewer rows (--only) or --gigabytes, or clear build/bench")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    parser.add_argument("--plot", metavar="FILE", default=os.path.join(CACHE, "bench.svg"),
                        help="draw the ratios here, and how planning grows beside it (default: build/bench/bench.svg)")
    parser.add_argument("--gigabytes", type=float, default=2, help="of each input (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="of each command, two at most of slow ones (default: 5)")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=[*ROWS, *SECTIONS], help="these rows")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--no-peers", action="store_true", help="leave the other converters out")
    parser.add_argument("--cold", action="store_true", help="also with the inputs dropped from the page cache, three rounds")
    parser.add_argument("--warm", type=float, metavar="GIB", help="memory touched before each round (default: two inputs')")
    args = parser.parse_args()
    args.warm = 2 * args.gigabytes if args.warm is None else args.warm
    return args


def main():
    args = arguments()
    names = args.only or [*ROWS, *SECTIONS]
    if args.list:
        for name in names:
            module, what, _ = SECTIONS.get(name, (None, None, None))
            print(f"{name:26}{module.about(what) if module else ROWS[name].about}")
        return 0
    os.makedirs(CACHE, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that what was written is removed
    say_needs(names, args)
    place, begun = runner.Place(CACHE), time.monotonic()
    try:
        report = measured(names, place, args)
    finally:
        place.remove()
    entries = report["rows"] + report["sections"]
    table.conclude(entries)
    print(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    if report["rows"]:
        with open(args.plot, "w") as file:
            file.write(plot.drawn(report["rows"], f"uckpt beside cp -r: {args.gigabytes:g} GB each, {os.cpu_count()} "
                                                  f"processors, medians of {args.rounds} rounds; bar: uckpt, mark: goal"))
    for entry in report["sections"]:
        if entry["name"] == "plan-growth" and entry.get("rows"):
            with open(args.plot.removesuffix(".svg") + "-growth.svg", "w") as file:
                file.write(plot.growth(entry["rows"]))
    if args.json:
        with open(args.json, "w") as file:
            about = {"gigabytes": args.gigabytes, "rounds": args.rounds, "processors": os.cpu_count()}
            json.dump({**about, **report}, file, indent=1)
    failed = [entry["name"] for entry in entries if has_failed(entry)]
    if failed:
        print(f"bench: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
