"""Memory that one ``step()`` allocates and gives back, in copies of the parameters.

    python benchmarks/memory.py
    python benchmarks/memory.py --device cuda

1.00 is one list of tensors as large as the parameters. The optimizer's state is not counted: it is
made before. On the CPU, torch's profiler records every allocation; on CUDA, the figure is the peak that
the allocator itself reports.
"""

from __future__ import annotations

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler; read when torch is imported

from collections.abc import Callable

import torch
from common import device_slug, make_parser, markdown_table, provenance, publish
from contenders import MODELS, OPTIMIZERS, PEERS, make_parameters
from torch.profiler import ProfilerActivity, profile

UNMEASURED_STEPS = 8
"""The first step makes the state, and rectification starts at the sixth."""

MEASURED_MODELS = ["400 tensors of 32", "ResNet-18", "4 tensors of 4096x2048"]


def measure_peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Measure the most that a call holds at a time, beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak


def main() -> None:
    """Measure every optimizer on every model."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    args = parser.parse_args()
    device = torch.device(args.device)

    rows = []
    for name, make_optimizer in OPTIMIZERS.items():
        row = [name]
        for model in MEASURED_MODELS:
            params = make_parameters(MODELS[model](), device)
            optimizer = make_optimizer(params)
            for _ in range(UNMEASURED_STEPS):
                optimizer.step()
            size = sum(param.numel() * param.element_size() for param in params)
            row.append(f"{measure_peak_bytes(optimizer.step, device) / size:.3f}")
        rows.append(row)

    table = markdown_table(["copies of the parameters", *MEASURED_MODELS], rows)
    document = f"# Memory that one step() allocates\n\n{table}\n{provenance(*PEERS, device=device)}"
    publish(document, f"memory-{device_slug(device)}.md", args.write)


if __name__ == "__main__":
    main()
