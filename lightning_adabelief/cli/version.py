"""``adabelief --version``: the versions that a report of a problem needs, read without importing a thing."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "pytorch-lightning", "lightning", "jsonargparse")


def list_versions() -> str:
    """Return a line each for this package, Python, torch, and both distributions of Lightning."""
    versions = {"lightning-adabelief": _find_version("lightning-adabelief"), "python": platform.python_version()}
    versions |= {name: _find_version(name) for name in PACKAGES}
    width = max(map(len, versions))
    lines = [f"{name:<{width}}  {number}" for name, number in versions.items()]
    return "\n".join(
        [*lines, "Lightning's classes are pytorch-lightning's unless a module of yours imports lightning first"]
    )


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
