"""How long `uckpt plan` takes of a checkpoint of 1,024 ranks, and the memory it needs."""
import os
import statistics

import many_ranks
import tool
from runner import Measured

STAGES = (1, 3)


def about(stage):
    return f"uckpt plan, ZeRO-{stage}, 1,024 ranks x 1,000 parameters"


def measure(stage, place, cache, args):
    source = many_ranks.make(os.path.join(cache, f"ranks1024-zero{stage}"), 1024, 1000, stage)
    plan = Measured([tool.binary(), "plan", source, os.path.join(place.out, "out.h5")])
    for _ in range(3):
        plan.time(place, "warm")
    plan.weigh(place)
    entry = {"name": f"plan-zero{stage}", "stage": stage, "error": plan.error}
    if not plan.error:
        seconds = plan.seconds["warm"]
        entry.update(median_s=statistics.median(seconds), min_s=min(seconds), peak_rss_mib=plan.peak[0],
                     peak_anonymous_mib=plan.peak[1])
    return entry


def show(entry):
    said = (f"FAILED: {entry['error']}" if entry["error"] else
            f"{entry['median_s']:.2f} s, {entry['peak_rss_mib']:.0f} MiB resident")
    print(f"\n{entry['name']}: {about(entry['stage'])}: {said}", flush=True)
