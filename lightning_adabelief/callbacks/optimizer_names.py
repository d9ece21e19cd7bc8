"""Names of a Trainer's optimizers, the same in every log and message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch.optim import Optimizer


def name_optimizers(optimizers: Iterable[Optimizer]) -> list[str]:
    """Name optimizers as LearningRateMonitor does: ``AdaBelief``, and ``AdaBelief-1`` for the second of a class.

    Args:
        optimizers: The Trainer's, in their order, unwrapped.

    Returns:
        A unique name for each. One whose only param group has a ``name`` goes by that.
    """
    seen: Counter[str] = Counter()
    names = []
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        if len(optimizer.param_groups) == 1:  # a module without optimizers has one without groups
            kind = optimizer.param_groups[0].get("name", kind)
        names.append(f"{kind}-{seen[kind]}" if seen[kind] else kind)
        seen[kind] += 1
    return names
