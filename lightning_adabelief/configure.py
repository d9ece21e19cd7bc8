"""Lightning-aware construction of the optimizer."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_adabelief.optim.adabelief import AdaBelief

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def configure_adabelief(module: Any, **options: Any) -> AdaBelief:
    """Make the AdaBelief that a ``configure_optimizers`` returns.

    Its parameters are named; biases and the parameters of normalization layers have no weight
    decay; and ``warmup`` may be a share of the Trainer's own steps.

    Args:
        module: A LightningModule; for a share of the run, one with a Trainer.
        **options: AdaBelief's.

    Returns:
        The optimizer; with weight decay it has the param groups ``decayed`` and ``undecayed``.

    Raises:
        ValueError: If the length of the run is needed and can't be known, or as AdaBelief does.

    Example::

        def configure_optimizers(self):
            return configure_adabelief(self, lr=1e-3, weight_decay=1e-2, warmup=0.05)
    """
    warmup = options.get("warmup", 0)
    if isinstance(warmup, float) and warmup > 0 and options.get("total_steps") is None:
        options["total_steps"] = _total_steps(module, warmup)
    if not options.get("weight_decay"):
        return AdaBelief(module.named_parameters(), **options)
    undecayed = {
        id(param)
        for owner in module.modules()
        for name, param in owner.named_parameters(recurse=False)
        if name.endswith("bias") or isinstance(owner, NORMS)
    }
    named = list(module.named_parameters())
    groups: list[dict[str, Any]] = [
        {"name": "decayed", "params": [(name, param) for name, param in named if id(param) not in undecayed]},
        {
            "name": "undecayed",
            "params": [(name, param) for name, param in named if id(param) in undecayed],
            "weight_decay": 0.0,
        },
    ]
    return AdaBelief([group for group in groups if group["params"]], **options)


def _total_steps(module: Any, warmup: float) -> int:
    """The optimizer steps of the run; the Trainer counts accumulation and devices in."""
    if not module.automatic_optimization:
        raise ValueError(
            f"warmup={warmup} under manual optimization: the Trainer cannot know how often this optimizer steps. "
            "Give total_steps as well, or warmup as a number of steps"
        )
    steps = module.trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise ValueError(
            f"warmup={warmup} of a run without end: the Trainer has neither max_steps nor max_epochs. Set one, "
            "or give warmup as a number of steps"
        )
    return int(steps)
