"""What was measured of a row, and whether its goals are met."""
import statistics

from rivals import MEMORY_GOAL, RIVALS

COPY, COPY_OUTPUT, COPY_SYNCED, OURS, OURS_SYNCED = "cp -r", "cp -r, output", "cp -r, sync -f", "uckpt", "uckpt, synced"


def summary(table, base):
    """name → medians, ratios to the command `base` in the same turns, peaks, or the error."""
    out = {}
    for name, measured in table.items():
        entry = out[name] = {}
        for heat, seconds in measured.seconds.items():
            if not seconds:
                continue
            cpu = statistics.median(measured.cpu[heat])
            entry[heat] = {"median_s": statistics.median(seconds), "min_s": min(seconds), "cpu_s": cpu, "rounds": len(seconds)}
            if table[base].seconds[heat]:
                entry[heat]["ratio"] = entry[heat]["median_s"] / statistics.median(table[base].seconds[heat])
                entry[heat]["cpu_ratio"] = cpu / statistics.median(table[base].cpu[heat])
        if measured.peak:
            entry["peak_rss_mib"], entry["peak_anonymous_mib"] = measured.peak
        if measured.error:
            entry["error"] = measured.error
    return out


def _median(commands, name):
    return commands.get(name, {}).get("warm", {}).get("median_s")


def _quotient(a, b):
    return a / b if a is not None and b else None


def _goal(command, what, value, limit, at_most):
    return {"command": command, "what": what, "value": value, "limit": limit, "at_most": at_most,
            "met": value <= limit if at_most else value >= limit}


def verdicts(row, commands, synced_goal):
    """Every goal whose both sides were measured; the cache is warm."""
    ours, found = commands.get(OURS, {}), []
    asked = [(OURS, "x cp", _quotient(_median(commands, OURS), _median(commands, COPY)), row.goal, True),
             (OURS_SYNCED, "x cp and sync", _quotient(_median(commands, OURS_SYNCED), _median(commands, COPY_SYNCED)),
              synced_goal, True)]
    for name in row.rivals:
        if RIVALS[name].goal:
            asked += [(name, "x uckpt", _quotient(_median(commands, name), _median(commands, OURS)), RIVALS[name].goal, False),
                      (name, "x its memory", _quotient(commands.get(name, {}).get("peak_rss_mib"), ours.get("peak_rss_mib")),
                       MEMORY_GOAL, False)]
    for command, what, value, limit, at_most in asked:
        if value is not None and limit is not None:
            found.append(_goal(command, what, value, limit, at_most))
    return found


def told(goal):
    sign = "<=" if goal["at_most"] else ">="
    return f"{goal['value']:.2f} {goal['what']} {sign} {goal['limit']:g} {'met' if goal['met'] else 'MISSED'}"
