"""The options of AdaBelief and their checks: every error names the value, what is allowed and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from lightning_adabelief.optim.scaling import is_fraction

SCALE_OPTIONS = ("lr", "betas", "rectify", "degenerated_to_sgd", "warmup", "total_steps")
"""The options that the scalars of a step depend on (:func:`~lightning_adabelief.optim.scaling.step_scale`)."""

RULE_OPTIONS = (
    "betas",
    "eps",
    "weight_decay",
    "weight_decouple",
    "fixed_decay",
    "residual",
    "maximize",
    "max_update_to_lr",
)
"""The options the update rule reads; the others choose the state that is kept and the implementation."""

LATER_OPTIONS: dict[str, Any] = {
    "warmup": 0,
    "total_steps": None,
    "residual": "updated",
    "maximize": False,
    "foreach": None,
    "fused": None,
    "capturable": False,
    "differentiable": False,
    "nonfinite": "propagate",
    "max_update_to_lr": None,
}
"""The options that ``adabelief-pytorch`` does not have, with their defaults: older pickles lack some."""

RESIDUALS = ("updated", "previous")


def check_options(options: dict[str, Any]) -> None:
    """Check the options of one param group.

    Args:
        options: The group, defaults filled in.

    Raises:
        ValueError: If a value is not allowed, or two options do not go together.
        RuntimeError: If two implementations that exclude each other are asked for.
    """
    check_values(options)
    _check_residual(options["betas"], options["residual"])
    _check_implementation(options)


def check_values(options: Mapping[str, Any]) -> None:
    """Check each of the options by itself, as far as they are given.

    Args:
        options: Some of AdaBelief's.

    Raises:
        ValueError: If a value is of another type than it should be, or out of its range.
    """
    checks: dict[str, Callable[[Any], None]] = {
        "lr": _check_lr,
        "eps": _check_eps,
        "weight_decay": _check_weight_decay,
        "betas": _check_betas,
        "warmup": _check_warmup,
        "total_steps": _check_total_steps,
    }
    for name, check in checks.items():
        if name in options:
            check(options[name])


def _check_is_number(name: str, value: Any) -> None:
    """Check that a value is a number or a tensor of one; YAML reads 1e-3 as a string."""
    if isinstance(value, Tensor | Real):
        return
    percentage = re.fullmatch(r"\s*([\d.]+)\s*%\s*", value) if isinstance(value, str) else None
    try:
        number = float(percentage[1]) / 100 if percentage else int(value) if str(value).isdecimal() else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"Invalid {name}: {value!r}. {name} must be a number, not a {type(value).__name__}") from None
    raise ValueError(
        f"Invalid {name}: {value!r} is a {type(value).__name__}, and {name} must be a number: give {name}={number} "
        "(YAML reads 1e-3 as a string, and 1.0e-3 as a number)"
    )


def _check_lr(lr: Any) -> None:
    _check_is_number("lr", lr)
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(lr.shape)}")
    if not (math.isfinite(as_number(lr)) and as_number(lr) >= 0):
        raise ValueError(f"Invalid learning rate: {lr}. lr must be a finite number >= 0, for example lr=1e-3")


def _check_eps(eps: Any) -> None:
    _check_is_number("eps", eps)
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(
            f"Invalid epsilon value: {eps}. eps must be a finite number >= 0, for example "
            "eps=1e-16 (or eps=1e-8, to lean towards SGD)"
        )


def _check_weight_decay(weight_decay: Any) -> None:
    _check_is_number("weight_decay", weight_decay)
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"Invalid weight_decay value: {weight_decay}. weight_decay must be a finite number "
            ">= 0, for example weight_decay=1e-2"
        )


def as_number(value: float | Tensor) -> float:
    """Return the number that a 1-element tensor holds, a number as it is."""
    return value.item() if isinstance(value, Tensor) else value


def _check_implementation(options: dict[str, Any]) -> None:
    if options["fused"] and options["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if options["fused"] and options["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if options["foreach"] and options["differentiable"]:
        raise ValueError(
            "foreach=True and differentiable=True do not go together: foreach ops don't support autograd; "
            "leave foreach out"
        )
    tensors = [("lr", options["lr"]), *((f"betas[{i}]", beta) for i, beta in enumerate(options["betas"]))]
    for name, value in tensors:
        if isinstance(value, Tensor) and options["foreach"] and not options["capturable"]:
            raise ValueError(
                f"{name} as a Tensor is not supported for capturable=False and foreach=True; give a number, "
                "leave foreach out, or give capturable=True as well"
            )


def _check_betas(betas: Any) -> None:
    if isinstance(betas, str) or not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"Invalid betas: {betas}. betas must be two numbers, for example betas=(0.9, 0.999)")
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError(f"betas must be either both floats or both Tensors, got {betas}")
    for index, beta in enumerate(betas):
        _check_is_number(f"betas[{index}]", beta)
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{index}] must be 1-element, got shape {tuple(beta.shape)}")
        if not 0 <= as_number(beta) < 1:
            raise ValueError(
                f"Invalid beta parameter at index {index}: {beta}. It must be in [0, 1), for example betas=(0.9, 0.999)"
            )


def _check_residual(betas: Any, residual: Any) -> None:
    if residual not in RESIDUALS:
        raise ValueError(f"Invalid residual: {residual!r}. residual must be 'updated' or 'previous'")
    if as_number(betas[0]) == 0 and residual == "updated":
        raise ValueError(
            f"Invalid betas: {betas} with residual='updated'. With beta1 = 0 the residual g_t - m_t is "
            "always 0, only eps is left of s_t, and the step explodes; give residual='previous', which "
            "measures belief against m_(t-1)"
        )


def _check_warmup(warmup: Any) -> None:
    _check_is_number("warmup", warmup)
    if isinstance(warmup, Integral):
        if warmup < 0:
            raise ValueError(f"Invalid warmup: {warmup}. As an int it is a number of steps, 0 for none")
    elif not 0 <= warmup < 1:
        raise ValueError(
            f"Invalid warmup: {warmup}. As a float it is a fraction of total_steps, between 0 and 1; give "
            "an int for a number of steps"
        )


def _check_total_steps(total_steps: Any) -> None:
    if total_steps is None:
        return
    _check_is_number("total_steps", total_steps)
    if not 0 < total_steps < math.inf:
        raise ValueError(f"Invalid total_steps: {total_steps}. It is the run's number of steps, finite, 1 or more")


def check_warmup_length(warmup: float, total_steps: int | None) -> None:
    """Check, before a step, that the warmup's length in steps is known; no tensor is read.

    Args:
        warmup: A number of steps, or a fraction of ``total_steps``.
        total_steps: Length of the run in optimizer steps, where it is known.

    Raises:
        ValueError: If the warmup is a fraction, and there is no ``total_steps``.
    """
    if is_fraction(warmup) and total_steps is None:
        raise ValueError(
            f"Invalid warmup: {warmup} without total_steps. A fraction of the run needs its length by the first "
            "step: give total_steps as well (in Lightning total_steps=int(self.trainer.estimated_stepping_batches)), "
            "let configure_adabelief(module, warmup=...) count it, or give warmup as a number of steps"
        )
