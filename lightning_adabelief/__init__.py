"""AdaBelief for PyTorch Lightning.

The public names are loaded when first used: the optimizer alone brings torch and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_adabelief.callbacks.belief_monitor import BeliefMonitor
    from lightning_adabelief.comparison.compare import compare
    from lightning_adabelief.configure import ConfiguredAdaBelief, build_optimizer, configure_adabelief, optimizer_steps
    from lightning_adabelief.optim.adabelief import AdaBelief
    from lightning_adabelief.optim.gradient_release import release_gradients

__all__ = [
    "AdaBelief",
    "BeliefMonitor",
    "ConfiguredAdaBelief",
    "build_optimizer",
    "compare",
    "configure_adabelief",
    "optimizer_steps",
    "release_gradients",
]

_MODULES = {
    "AdaBelief": "lightning_adabelief.optim.adabelief",
    "BeliefMonitor": "lightning_adabelief.callbacks.belief_monitor",
    "ConfiguredAdaBelief": "lightning_adabelief.configure",
    "build_optimizer": "lightning_adabelief.configure",
    "compare": "lightning_adabelief.comparison.compare",
    "configure_adabelief": "lightning_adabelief.configure",
    "optimizer_steps": "lightning_adabelief.configure",
    "release_gradients": "lightning_adabelief.optim.gradient_release",
}


_SUBMODULES = ("beliefs", "landscapes")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:  # so that lightning_adabelief.landscapes.run works without an import of its own
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
