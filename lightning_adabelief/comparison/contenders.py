"""The optimizers that are compared: each with its usual learning rate and every option spelled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contender:
    """An optimizer that takes part in a comparison.

    Attributes:
        name: Its name in tables: ``"adabelief"``, or one that the user gave.
        class_path: Its class.
        init_args: All its options but ``lr`` and ``weight_decay``, defaults included.
        usual_lr: The learning rate that the relative ones are multiples of.
        weight_decay_factor: What the plan's weight decay is multiplied by for this optimizer.
    """

    name: str
    class_path: str
    init_args: dict[str, Any]
    usual_lr: float
    weight_decay_factor: float = 1.0
