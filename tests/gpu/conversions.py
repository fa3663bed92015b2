"""Conversions by the CPU and by the GPU: the same bytes, and how long each takes. Usage: conversions.py UCKPT FOLDER

Exits 1 where outputs differ."""
import filecmp
import os
import shutil
import statistics
import subprocess
import sys
import time

import torch

ROUNDS = 3
ROWS, COLUMNS, COUNT = 4096, 4096, 24   # 1.6 GB of fp32


def weights(transposed, dtype=torch.float32):
    for i in range(COUNT):
        torch.manual_seed(i)
        weight = torch.randn(ROWS, COLUMNS).to(dtype)
        yield f"layers.{i}.weight", weight.t() if transposed else weight


def made(folder, name, tensors):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        torch.save(dict(tensors), path + ".part")
        os.rename(path + ".part", path)
    return path


def files(path):
    if not os.path.isdir(path):
        return {"": path}
    return {os.path.relpath(os.path.join(at, name), path): os.path.join(at, name)
            for at, _, names in os.walk(path) for name in names}


def same(a, b):
    a, b = files(a), files(b)
    return a.keys() == b.keys() and all(filecmp.cmp(a[name], b[name], shallow=False) for name in a)


def convert(uckpt, source, target, device, options):
    shutil.rmtree(target, ignore_errors=True)
    if os.path.exists(target):
        os.remove(target)
    begun = time.monotonic()
    subprocess.run([uckpt, "convert", source, target, "--device", device, *options], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def main():
    uckpt, folder = sys.argv[1:]
    views = made(folder, "views.pt", weights(True))
    plain = made(folder, "plain.pt", weights(False))
    rows = [
        ("transposed views to HDF5", views, ".h5", []),
        ("transposed views to safetensors", views, "-hf", ["--to", "safetensors"]),
        ("fp32 to bf16 safetensors", plain, "-bf16", ["--to", "safetensors", "--dtype", "bf16"]),
        ("transposed views to bf16", views, "-views-bf16", ["--to", "safetensors", "--dtype", "bf16"]),
    ]
    failed = 0
    print(f"\n{'':36} {'cpu':>8} {'cuda:0':>8} {'ratio':>6}   (seconds, median of {ROUNDS})")
    for name, source, ending, options in rows:
        outputs = {device: os.path.join(folder, f"out-{device.replace(':', '')}{ending}") for device in ("cpu", "cuda:0")}
        times = {device: [] for device in outputs}
        for _ in range(ROUNDS):
            for device, target in outputs.items():
                times[device].append(convert(uckpt, source, target, device, options))
        cpu, gpu = (statistics.median(times[device]) for device in outputs)
        equal = same(*outputs.values())
        failed += not equal
        print(f"{name:36} {cpu:8.2f} {gpu:8.2f} {cpu / gpu:6.2f}{'' if equal else '  DIFFERS'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
