"""Memory that one ``step()`` allocates for a while, in copies of the parameters.

    python benchmarks/memory.py
    python benchmarks/memory.py --device cuda

1.00 is one list of tensors as large as the parameters. The state is made before. On the CPU every
allocation of torch's is recorded by its profiler; on CUDA it is the allocator's own peak. The
table is written to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages, read when torch is imported

import torch
from common import OPTIMIZERS, PEERS, PROFILES, RESULTS, markdown, parameters
from machine import command, machine, versions
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

UNMEASURED_STEPS = 8
"""RAdam's first five steps are SGD, and the first one makes the state."""

MEASURED = ["400 tensors of 32", "ResNet-18", "4 tensors of 4096x2048"]


def peak_bytes(optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """The most that one step holds at a time beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        optimizer.step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        optimizer.step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--out", type=Path, help="file to write (default: benchmarks/results/memory-<device>.md)")
    args = parser.parse_args()
    device = torch.device(args.device)

    rows = []
    for name, make in OPTIMIZERS.items():
        row = [name]
        for profile_name in MEASURED:
            params = parameters(PROFILES[profile_name](), device)
            optimizer = make(params)
            for _ in range(UNMEASURED_STEPS):
                optimizer.step()
            size = sum(param.numel() * param.element_size() for param in params)
            row.append(f"{peak_bytes(optimizer, device) / size:.3f}")
        rows.append(row)

    header = ["copies of the parameters", *MEASURED]
    notes = f"{machine(device)}. {versions(*PEERS)}.\n\n`{command()}`\n"
    table = Table(*header, title=f"Memory of one step() on {machine(device)}")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table, notes, markup=False)
    kind = "cpu" if device.type == "cpu" else "cuda-" + re.sub(r"\W+", "-", machine(device)).lower()
    out = args.out or RESULTS / f"memory-{kind}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"# Memory that one step() allocates\n\n{notes}\n{markdown(header, rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
