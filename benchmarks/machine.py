"""What a table of measurements says of where it was made: the machine, the versions, the command."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch


def machine(device: torch.device | None = None) -> str:
    """The machine in words: the GPU, or the CPU (the default) and the threads in use."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def versions(*packages: str) -> str:
    """Python's version and the packages'."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def command() -> str:
    """The command that is running, from the repository's root."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
