"""What a table of measurements says of the machine that made it."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Processor, cores and accelerator in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(": ")[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] or [
        platform.processor()
    ]
    return f"{models[0]}, {os.cpu_count()} cores"


def versions(*packages: str) -> str:
    """Python's version and those of the packages."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def command() -> str:
    """The command line, as one would type it from the repository's root."""
    return " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])
