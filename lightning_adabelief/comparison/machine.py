"""The machine that a trial ran on, and the memory that it took."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import torch

MIB = 2**20

PACKAGES = ("lightning-adabelief", "torch", "pytorch-lightning", "lightning")


def describe_machine(device: torch.device, modules: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a run's speed, and the last digits of its figures, depend on.

    Args:
        device: The device that it trains on.
        modules: Names of modules whose packages' versions are returned too.

    Returns:
        ``processor``, ``gpu`` where it trains on one, ``threads`` and ``versions``, which is a dict by package.
    """
    described: dict[str, Any] = {"processor": _read_processor(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
    return described | {"versions": _find_versions(modules)}


def measure_peak_memory(device: torch.device) -> float:
    """Return the most memory, in MiB, that torch has had allocated on a GPU, or this process in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        # Not ru_maxrss, which begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kibibytes) * 1024 / MIB
    except (OSError, ValueError):
        import resource  # which Windows has not

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / MIB if sys.platform == "darwin" else peak * 1024 / MIB


def _read_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that it does not name
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _find_versions(modules: Iterable[str]) -> dict[str, str]:
    of_module = packages_distributions()
    others = [name for module in modules for name in of_module.get(module.partition(".")[0], ())]
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, *others)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # one of Lightning's two packages is enough
            pass
    return versions
