"""The state of an Adam read as AdaBelief's, to tell before a switch what would be different."""

from __future__ import annotations

from typing import Any

from torch.optim import Adam, AdamW, Optimizer

from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.migrate import adam_as_adabelief

READABLE = (AdaBelief, Adam, AdamW)
"""The optimizers whose beliefs can be read."""


def read_state(
    optimizer: Optimizer, state: dict[str, Any], group: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a parameter's state and group as AdaBelief has them.

    Args:
        optimizer: One of :data:`READABLE`.
        state: A parameter's state in it, at least one step old.
        group: Its param group.

    Returns:
        AdaBelief's as they are. From an Adam's, s_t is estimated (:mod:`lightning_adabelief.optim.migrate`).
    """
    if isinstance(optimizer, AdaBelief):
        return state, group
    estimated, options = adam_as_adabelief(state, group)
    estimated = {**estimated, "exp_avg_sq": state["exp_avg_sq"]}
    # AdamW, or an Adam told to decay as AdamW does
    decouples = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    decay = {"weight_decay": group["weight_decay"], "weight_decouple": decouples, "fixed_decay": False}
    return estimated, options | decay | {"maximize": group["maximize"], "residual": "updated"}
