"""The sections that are no copies: how planning grows with fragments, and 100,000 tensors in one HDF5 file."""
import plan_growth

SECTIONS = {"plan-growth": "`uckpt plan` of ZeRO-3 checkpoints of a trillion parameters' kind, 10^4 to 10^7 fragments",
            "hdf5-100k": "100,000 tensors of 256 bytes in one HDF5 file"}


def about(name):
    return SECTIONS[name]


def measure(name, place, cache, args):
    rows = plan_growth.plan_growth() if name == "plan-growth" else plan_growth.hdf5_rows(runs=3)
    return {"name": name, "about": about(name), "rows": rows, "error": None}


def show(entry):
    print(f"\n{entry['name']}: {entry['about']}")
    (plan_growth.print_plan if entry["name"] == "plan-growth" else plan_growth.print_hdf5)(entry["rows"])
