"""Time of one ``step()``, as a ratio to ``torch.optim.AdamW(fused=True)`` in the same process.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --device cuda

Contenders take turns, in an order drawn anew each round: in every round each takes one timed step,
and its time is divided by the baseline's of that round, so that what else the machine does hits all
alike. Shown is the median over the rounds, and for the fused path also the ratio of the fastest
steps, which other work on the machine changes least. The table is written to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import (
    BASELINE,
    CPU_PROFILES,
    OPTIMIZERS,
    PEERS,
    PROFILES,
    RESULTS,
    markdown,
    moved_bytes,
    parameters,
)
from machine import command, machine, versions
from rich.console import Console
from rich.table import Table

UNTIMED_STEPS = 8
"""RAdam's first five steps are SGD, and the first one makes the state."""

RAM_SHARE = 0.8
"""Of the device's memory, what parameters, gradients and all contenders' states may take."""

SPARED = ("AdamW forloop", "AdaBelief forloop", "adabelief-pytorch", "timm", "pytorch-optimizer")
"""Left out of a profile that has no room for all."""

FIRST_STEP = """
import sys, time, torch
from lightning_adabelief import AdaBelief
param = torch.nn.Parameter(torch.ones(1000, device=sys.argv[1]))
param.grad = torch.ones_like(param)
optimizer = AdaBelief([param], fused=True)
start = time.perf_counter()
optimizer.step()
param.sum().item()
print(time.perf_counter() - start)
"""


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds a call takes, until the device has done its part."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def time_profile(profile: str, device: torch.device, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Time every contender on a profile.

    Returns:
        Seconds, a number a round, for each contender; and the bytes that one step must move.
    """
    params = parameters(PROFILES[profile](), device)
    names = [name for name in OPTIMIZERS if fits_all(params, device) or name not in SPARED]
    optimizers = {name: OPTIMIZERS[name](params) for name in names}
    for optimizer in optimizers.values():
        for _ in range(UNTIMED_STEPS):
            optimizer.step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            seconds[name].append(timed(optimizers[name].step, device))
    return seconds, moved_bytes(params)


def fits_all(params: list[torch.Tensor], device: torch.device) -> bool:
    """Whether the states of all contenders fit beside each other."""
    if device.type != "cuda":
        return True
    size = sum(param.numel() * param.element_size() for param in params)
    room = RAM_SHARE * torch.cuda.get_device_properties(device).total_memory
    return size * (2 + 2 * len(OPTIMIZERS) + 2) < room


def copy_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes a second that copying a tensor of ``size`` float32 moves: each is read and written."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = statistics.median(timed(lambda: target.copy_(source), device) for _ in range(20))
    return 2 * source.numel() * source.element_size() / seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> str:
    """Median over the rounds of one contender's time over another's."""
    if name not in seconds:
        return "-"
    return f"{statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True)):.2f}"


def first_use(device: torch.device) -> tuple[float, float]:
    """Seconds the first fused step of a process takes: with empty caches, and with full ones."""
    with tempfile.TemporaryDirectory() as cache:
        caches = {"LIGHTNING_ADABELIEF_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        cold, warm = (
            float(
                subprocess.run(
                    [sys.executable, "-c", FIRST_STEP, device.type],
                    env=os.environ | caches,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(2)
        )
    return cold, warm


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch's)")
    parser.add_argument("--rounds", type=int, default=31, help="timed steps a contender (default: 31)")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), help="default: those meant for the device")
    parser.add_argument("--out", type=Path, help="file to write (default: benchmarks/results/step_time-<device>.md)")
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    profiles = args.profiles or (CPU_PROFILES if device.type == "cpu" else list(PROFILES))

    results, moved = {}, {}
    for profile in profiles:
        results[profile], moved[profile] = time_profile(profile, device, args.rounds)
    bandwidth = copy_bandwidth(device) if device.type == "cuda" else math.nan

    header = [f"ratio to {BASELINE}", *profiles]
    rows = [[name, *(ratio(results[profile], name, BASELINE) for profile in profiles)] for name in OPTIMIZERS]
    among_foreach = (ratio(results[profile], "AdaBelief foreach", "AdamW foreach") for profile in profiles)
    rows.append(["AdaBelief foreach / AdamW foreach", *among_foreach])
    fastest = (min(results[profile]["AdaBelief fused"]) / min(results[profile][BASELINE]) for profile in profiles)
    rows.append([f"AdaBelief fused / {BASELINE}, fastest steps", *(f"{value:.2f}" for value in fastest)])
    for name in (BASELINE, "AdaBelief fused"):
        medians = {profile: statistics.median(results[profile][name]) for profile in profiles}
        rows.append([f"{name}, ms", *(f"{1e3 * medians[profile]:.2f}" for profile in profiles)])
        if device.type == "cuda":  # on the CPU a copy is far from what the memory can do
            shares = (moved[profile] / medians[profile] / bandwidth for profile in profiles)
            rows.append([f"{name}, bandwidth / a copy's", *(f"{share:.2f}" for share in shares)])

    cold, warm = first_use(device)
    notes = (
        f"{machine(device)}. {versions(*PEERS)}.\n\n"
        f"`{command()}`: medians of {args.rounds} steps, taken in turns, with a load average of "
        f"{os.getloadavg()[0]:.1f} at the end.\n\n"
        f"First step of a process with `fused=True`: {cold:.1f} s with empty caches, {warm:.2f} s with full ones.\n"
    )
    if device.type == "cuda":
        notes += (
            f"\nA copy from memory to memory: {bandwidth / 1e9:.0f} GB/s, read and written; the bandwidth of a step "
            "counts 28 bytes a parameter.\n"
        )
    table = Table(*header, title=f"One step() on {machine(device)}")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(table, notes, markup=False)
    kind = "cpu" if device.type == "cpu" else "cuda-" + re.sub(r"\W+", "-", machine(device)).lower()
    out = args.out or RESULTS / f"step_time-{kind}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"# Time of one step()\n\n{notes}\n{markdown(header, rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
