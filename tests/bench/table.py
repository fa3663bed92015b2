"""The text of what was measured."""
from goals import told


def _times(entry, heat):
    if heat not in entry:
        return f"{'':34}"
    ratios = f"{entry[heat]['ratio']:7.2f} {entry[heat]['cpu_ratio']:7.2f}" if "ratio" in entry[heat] else f"{'':15}"
    return f"{entry[heat]['median_s']:8.2f}s {entry[heat]['min_s']:7.2f}s {ratios}"


def header(cold):
    heats = "".join(f"{heat + ' median':>12} {'min':>6} {'x cp':>8} {'(cpu)':>7}" for heat in ("warm", *(["cold"] * cold)))
    print(f"\n{'':22}{heats} {'resident':>13} {'anonymous':>13}  goals")


def show(entry, cold):
    print(f"{entry['name']}: {entry['about']}, {entry['bytes'] / 1e9:.2f} GB")
    for name, command in entry["commands"].items():
        peaks = (f"{command['peak_rss_mib']:9.0f} MiB {command['peak_anonymous_mib']:9.0f} MiB" if "peak_rss_mib" in command
                 else f"{'':27}")
        goals = "; ".join(told(goal) for goal in entry["goals"] if goal["command"] == name)
        cells = _times(command, "warm") + (" " + _times(command, "cold") if cold else "")
        print(f"  {name:22} {cells} {peaks}  {goals}".rstrip())
        if "error" in command:
            print(f"  {name:22} FAILED: {command['error']}")
    print(end="", flush=True)


def conclude(entries):
    goals = [(entry["name"], goal) for entry in entries for goal in entry.get("goals", [])]
    missed = [(name, goal) for name, goal in goals if not goal["met"]]
    print(f"\n{len(goals) - len(missed)} goals met, {len(missed)} missed")
    for name, goal in missed:
        print(f"  {name}, {goal['command']}: {told(goal)}")
