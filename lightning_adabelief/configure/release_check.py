"""Refuse a Trainer that needs all gradients at once, where ``release_gradients`` drops each as it comes."""

from __future__ import annotations

from typing import Any

from lightning_adabelief.lightning_tree import TREES, is_a, rank_zero_warn
from lightning_adabelief.optim.gradient_release import find_release

HOOKS_AFTER_BACKWARD = ("on_after_backward", "on_before_optimizer_step")
"""The hooks of a module that Lightning calls between the backward pass and the step."""


def check_release(trainer: Any, module: Any) -> None:
    """Check that a Trainer can go together with its optimizers' gradient release, where there is one.

    A module with a hook between the backward pass and the step is warned of: it finds no gradients there.

    Args:
        trainer: The Trainer, before its first batch or at the start of an epoch.
        module: The LightningModule.

    Raises:
        ValueError: If the Trainer clips or accumulates gradients, scales the loss, adds gradients up over ranks, or
            has several optimizers.
    """
    if all(find_release(optimizer) is None for optimizer in trainer.optimizers):
        return
    reason = _find_reason(trainer, module)
    if reason is not None:
        raise ValueError(
            f"release_gradients drops each gradient in the backward pass, as soon as its parameter is stepped: {reason}"
        )
    hooks = [hook for hook in HOOKS_AFTER_BACKWARD if _overrides(module, hook)]
    if hooks and trainer.current_epoch == 0:
        rank_zero_warn(f"{type(module).__name__}.{hooks[0]} finds no gradients: release_gradients has dropped them")


def _find_reason(trainer: Any, module: Any) -> str | None:
    """Return why a Trainer can't go together with gradient release, and what to do; None if it can."""
    strategy = type(trainer.strategy).__name__
    clips = bool(trainer.gradient_clip_val) and module.automatic_optimization
    if clips:
        clipping = f"Trainer(gradient_clip_val={trainer.gradient_clip_val})"
    else:
        clipping = f"{type(module).__name__}.configure_gradient_clipping"
    if clips or _overrides(module, "configure_gradient_clipping"):
        return f"{clipping} comes too late. Leave it out; max_update_to_lr=10 bounds each step instead"
    schedulers = [callback for callback in trainer.callbacks if is_a(callback, "GradientAccumulationScheduler")]
    if trainer.accumulate_grad_batches > 1 or any(each.going_to_accumulate_grad_batches() for each in schedulers):
        return "they can't be accumulated over batches. Set accumulate_grad_batches to 1"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return "they are still scaled by the gradient scaler then. Train with precision='bf16-mixed' or '32-true'"
    if not is_a(trainer.strategy, "SingleDeviceStrategy"):
        return f"{strategy} adds them up over ranks only later. Train on one device"
    if len(trainer.optimizers) > 1:
        return (
            f"with {len(trainer.optimizers)} optimizers a backward pass for one would step the others' parameters too. "
            "Leave release_gradients out"
        )
    return None


def _overrides(module: Any, hook: str) -> bool:
    """Return True if a module has a hook of its own, in the place of Lightning's, of either class tree."""
    return getattr(type(module), hook).__module__.partition(".")[0] not in TREES
