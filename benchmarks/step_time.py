"""Time of one ``step()``, as a ratio to ``torch.optim.AdamW(fused=True)`` in the same process.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --device cuda

The optimizers take turns, in an order drawn anew each round: in every round each takes one timed step,
and its time is divided by the baseline's of that round, so that other work on the machine slows all of
them alike. The table shows the median over the rounds, and for the fused implementation also the ratio of
the fastest steps, which other work on the machine changes least.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from common import device_slug, make_parser, markdown_table, provenance, publish
from contenders import BASELINE, CPU_MODELS, MODELS, OPTIMIZERS, PEERS, count_moved_bytes, make_parameters

UNTIMED_STEPS = 8
"""The first step makes the state, and rectification starts at the sixth."""

MEMORY_FRACTION = 0.8
"""Fraction of the device's memory that parameters, gradients and all optimizers' states may take."""

LEFT_OUT_OF_LARGE_MODELS = ("AdamW forloop", "AdaBelief forloop", "adabelief-pytorch", "timm", "pytorch-optimizer")
"""Optimizers that are not timed on a model whose memory does not hold the states of all."""

FIRST_STEP_SCRIPT = """
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


def time_call(function: Callable[[], object], device: torch.device) -> float:
    """Time a call in seconds, until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def time_model(model: str, device: torch.device, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Time every optimizer on a model.

    Returns:
        From each optimizer's name to its seconds, one number per round; and the bytes that one step must move.
    """
    params = make_parameters(MODELS[model](), device)
    fits = fits_all_states(params, device)
    names = [name for name in OPTIMIZERS if fits or name not in LEFT_OUT_OF_LARGE_MODELS]
    optimizers = {name: OPTIMIZERS[name](params) for name in names}
    for optimizer in optimizers.values():
        for _ in range(UNTIMED_STEPS):
            optimizer.step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            seconds[name].append(time_call(optimizers[name].step, device))
    return seconds, count_moved_bytes(params)


def fits_all_states(params: list[torch.Tensor], device: torch.device) -> bool:
    """True if the states of all optimizers fit into the device's memory together."""
    if device.type != "cuda":
        return True
    size = sum(param.numel() * param.element_size() for param in params)
    room = MEMORY_FRACTION * torch.cuda.get_device_properties(device).total_memory
    # Parameters and gradients, two averages for each optimizer, and two lists of intermediates.
    return size * (2 + 2 * len(OPTIMIZERS) + 2) < room


def measure_copy_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Measure the bytes per second that copying ``size`` float32 moves; each is read and written."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = statistics.median(time_call(lambda: target.copy_(source), device) for _ in range(20))
    return 2 * source.numel() * source.element_size() / seconds


def format_ratio(seconds: dict[str, list[float]], name: str, to: str) -> str:
    """Format the median, over the rounds, of one optimizer's time divided by another's; ``-`` if it was left out."""
    if name not in seconds:
        return "-"
    return f"{statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True)):.2f}"


def time_first_step(device: torch.device) -> tuple[float, float]:
    """Time the first fused step of a process, in seconds: with empty caches, and with full ones."""
    with tempfile.TemporaryDirectory() as cache:
        caches = {"LIGHTNING_ADABELIEF_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        cold, warm = (
            float(
                subprocess.run(
                    [sys.executable, "-c", FIRST_STEP_SCRIPT, device.type],
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
    """Time every optimizer on every model."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch's)")
    parser.add_argument("--rounds", type=int, default=31, help="timed steps of each optimizer (default: 31)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="default: those meant for the device")
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    models = args.models or (CPU_MODELS if device.type == "cpu" else list(MODELS))

    results, moved = {}, {}
    for model in models:
        results[model], moved[model] = time_model(model, device, args.rounds)
    bandwidth = measure_copy_bandwidth(device) if device.type == "cuda" else math.nan

    rows = [[name, *(format_ratio(results[model], name, BASELINE) for model in models)] for name in OPTIMIZERS]
    among_foreach = (format_ratio(results[model], "AdaBelief foreach", "AdamW foreach") for model in models)
    rows.append(["AdaBelief foreach / AdamW foreach", *among_foreach])
    fastest = (min(results[model]["AdaBelief fused"]) / min(results[model][BASELINE]) for model in models)
    rows.append([f"AdaBelief fused / {BASELINE}, fastest steps", *(f"{value:.2f}" for value in fastest)])
    for name in (BASELINE, "AdaBelief fused"):
        medians = {model: statistics.median(results[model][name]) for model in models}
        rows.append([f"{name}, ms", *(f"{1e3 * medians[model]:.2f}" for model in models)])
        if device.type == "cuda":  # on the CPU a copy is far from what the memory can do
            fractions = (moved[model] / medians[model] / bandwidth for model in models)
            rows.append([f"{name}, bandwidth / a copy's", *(f"{fraction:.2f}" for fraction in fractions)])

    cold, warm = time_first_step(device)
    notes = (
        f"Medians of {args.rounds} steps, taken in turns. First step of a process with `fused=True`: {cold:.1f} s with "
        f"empty caches, {warm:.2f} s with full ones.\n"
    )
    if device.type == "cuda":
        notes += (
            f"\nA copy from memory to memory: {bandwidth / 1e9:.0f} GB/s, read and written; the bandwidth of a step "
            "counts 28 bytes per parameter.\n"
        )
    table = markdown_table([f"ratio to {BASELINE}", *models], rows)
    document = f"# Time of one step()\n\n{notes}\n{table}\n{provenance(*PEERS, device=device)}"
    publish(document, f"step_time-{device_slug(device)}.md", args.write)


if __name__ == "__main__":
    main()
