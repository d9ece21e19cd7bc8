"""The clipping of gradients that a training has, or could have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OPTION = "gradient_clip_val"
"""The Trainer's option; and the attribute of a module that steps its optimizers itself, for which Lightning refuses
the Trainer's."""


@dataclass(frozen=True)
class Clipping:
    """The clipping of a training's gradients.

    Attributes:
        is_on: True if the Trainer clips gradients, or the module does in its ``on_before_optimizer_step``.
        is_by_value: True if the Trainer clips them by value, a common cause of exploding steps.
        advice: The code that clips them by norm.
    """

    is_on: bool = False
    is_by_value: bool = False
    advice: str = f"Trainer({OPTION}=...)"


def find_clipping(trainer: Any, module: Any) -> Clipping:
    """Find how a Trainer clips the gradients of a LightningModule."""
    if module.automatic_optimization:
        is_on = bool(trainer.gradient_clip_val)
        return Clipping(is_on, is_on and trainer.gradient_clip_algorithm == "value")
    if not hasattr(module, OPTION):
        return Clipping(advice="self.clip_gradients(...) in training_step")
    return Clipping(is_on=bool(getattr(module, OPTION)), advice=f"{type(module).__name__}({OPTION}=...)")
