"""The options of AdaBelief and their checks: every error names the value, what is allowed and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
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
    "master_weight_bits": 32,
    "state_bits": 32,
    "rounding_seed": 0,
}
"""The options that ``adabelief-pytorch`` does not have, with their defaults: older pickles lack some."""

IMPLEMENTATION_OPTIONS = ("foreach", "fused", "capturable", "differentiable", "nonfinite", "state_bits")
"""The options that say how a step is taken, or whether, or stored, not which: a checkpoint does not change them."""

NUMBER_TYPES = (float, int, Tensor, Real)
"""The types of numbers, the usual ones first, for they are looked through in order at each step."""

NONFINITE = ("propagate", "skip", "raise")
"""Treatments of a step whose gradients are not finite: take it, change nothing, or raise an error."""

RESIDUALS = ("updated", "previous")

MASTER_WEIGHT_BITS = (32, 24, 16)
"""The bits that a step may work on of a weight in bfloat16 or float16."""

STATE_BITS = (32, 16, 8)
"""The bits in which each number of the averages may be kept."""


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of one param group.

    Args:
        options: The group, defaults filled in.

    Returns:
        AdaBelief's options: Python's own numbers and bools in place of NumPy's, and betas as a tuple. A
        tensor remains one for lr and betas, and is its number elsewhere.

    Raises:
        ValueError: If a value is not allowed, or two options do not go together.
        RuntimeError: If two implementations that exclude each other are asked for.
    """
    plain = check_values(options)
    _check_residual(plain["betas"], plain["residual"])
    _check_implementation(plain)
    return plain


def check_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check each of the options by itself, as far as they are given.

    Args:
        options: Some of AdaBelief's; other names are passed over.

    Returns:
        Those that are AdaBelief's, in Python's own types; see :func:`check_options`.

    Raises:
        ValueError: If a value is of another type than it should be, or out of its range.
    """
    readers: dict[str, Callable[[str, Any], Any]] = {
        "lr": _read_lr,
        "betas": _read_betas,
        "eps": _read_eps,
        "weight_decay": _read_weight_decay,
        "amsgrad": _read_bool,
        "weight_decouple": _read_bool,
        "fixed_decay": _read_bool,
        "rectify": _read_bool,
        "degenerated_to_sgd": _read_bool,
        "warmup": _read_warmup,
        "total_steps": _read_total_steps,
        "residual": _read_residual,
        "nonfinite": _read_nonfinite,
        "max_update_to_lr": _read_max_update_to_lr,
        "master_weight_bits": _read_master_weight_bits,
        "state_bits": _read_state_bits,
        "rounding_seed": _read_rounding_seed,
        "maximize": _read_bool,
        "foreach": _read_optional_bool,
        "fused": _read_optional_bool,
        "capturable": _read_bool,
        "differentiable": _read_bool,
    }
    return {name: read(name, options[name]) for name, read in readers.items() if name in options}


def make_plain(value: Any) -> Any:
    """Return the number that a NumPy scalar or 0-dim array holds, any other value as it is."""
    holds_number = getattr(value, "shape", None) == () and not isinstance(value, Tensor)
    return value.item() if holds_number else value


def _read_number(name: str, value: Any) -> int | float:
    """Return a number as an int or a float; YAML reads 1e-3 as a string."""
    if isinstance(value, Tensor):
        _check_tensor(name, value)
        if value.requires_grad:
            raise ValueError(
                f"Invalid {name}: a tensor that requires grad. Autograd reaches lr and betas, no other option: give "
                f"{name}={value.item()}"
            )
        return value.item()
    number = make_plain(value)
    if isinstance(number, Real) and not isinstance(number, bool):
        try:
            float(number)
        except OverflowError:
            raise ValueError(f"Invalid {name}: it is larger than any float") from None
        return int(number) if isinstance(number, Integral) else float(number)
    percentage = re.fullmatch(r"\s*([\d.]+)\s*%\s*", value) if isinstance(value, str) else None
    try:
        meant = float(percentage[1]) / 100 if percentage else int(value) if str(value).isdecimal() else float(value)
    except (TypeError, ValueError):
        meant = None
    if meant is None or not isinstance(value, str):
        raise ValueError(f"Invalid {name}: {value!r}. {name} must be a number, not a {type(value).__name__}")
    raise ValueError(
        f"Invalid {name}: {value!r} is a {type(value).__name__}, and {name} must be a number: give {name}={meant} "
        "(YAML reads 1e-3 as a string, and 1.0e-3 as a number)"
    )


def _check_tensor(name: str, value: Tensor) -> None:
    """Raise ValueError unless a tensor holds one real number."""
    if value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element, got shape {tuple(value.shape)}")
    if value.dtype is torch.bool or value.is_complex():
        raise ValueError(f"Tensor {name} must hold a real number, got one of {value.dtype}")


def _read_tensor_or_number(name: str, value: Any) -> Tensor | int | float:
    if not isinstance(value, Tensor):
        return _read_number(name, value)
    _check_tensor(name, value)
    return value


def _read_bool(name: str, value: Any) -> bool:
    """Return a bool; 0 and 1 are taken for one, and NumPy's bools and 0-dim tensors."""
    plain = value.item() if isinstance(value, Tensor) and value.dim() == 0 else make_plain(value)
    if isinstance(plain, int) and plain in (0, 1):
        return bool(plain)
    remedy = f"; leave out the quotes, for any string counts as true: {name}=False" if isinstance(value, str) else ""
    raise ValueError(f"Invalid {name}: {value!r}. {name} must be True or False{remedy}")


def _read_optional_bool(name: str, value: Any) -> bool | None:
    return None if value is None else _read_bool(name, value)


def _read_lr(name: str, value: Any) -> Tensor | int | float:
    lr = _read_tensor_or_number(name, value)
    if not (math.isfinite(as_number(lr)) and as_number(lr) >= 0):
        raise ValueError(f"Invalid learning rate: {lr}. lr must be a finite number >= 0, for example lr=1e-3")
    return lr


def _read_eps(name: str, value: Any) -> int | float:
    eps = _read_number(name, value)
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(
            f"Invalid epsilon value: {eps}. eps must be a finite number >= 0, for example "
            "eps=1e-16 (or eps=1e-8, to lean towards SGD)"
        )
    return eps


def _read_weight_decay(name: str, value: Any) -> int | float:
    weight_decay = _read_number(name, value)
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"Invalid weight_decay value: {weight_decay}. weight_decay must be a finite number "
            ">= 0, for example weight_decay=1e-2"
        )
    return weight_decay


def as_number(value: float | Tensor) -> float:
    """Return the number that a 1-element tensor holds, a number as it is."""
    return value.item() if isinstance(value, Tensor) else value


def _check_implementation(options: dict[str, Any]) -> None:
    if options["fused"] and options["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if options["fused"] and options["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if options["differentiable"] and options["state_bits"] < 32:
        raise ValueError(
            f"state_bits={options['state_bits']} and differentiable=True do not go together: autograd can't go through "
            "the coding of m_t and s_t; leave one of them out"
        )
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


def _read_betas(name: str, value: Any) -> tuple[Any, Any]:
    is_array = getattr(value, "shape", None) == (2,) and not isinstance(value, Tensor)  # NumPy's
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not (is_array or is_sequence) or len(value) != 2:
        raise ValueError(f"Invalid betas: {value}. betas must be two numbers, for example betas=(0.9, 0.999)")
    betas = _read_tensor_or_number("betas[0]", value[0]), _read_tensor_or_number("betas[1]", value[1])
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError(f"betas must be either both floats or both Tensors, got {betas}")
    for index, beta in enumerate(betas):
        if not 0 <= as_number(beta) < 1:
            raise ValueError(
                f"Invalid beta parameter at index {index}: {beta}. It must be in [0, 1), for example betas=(0.9, 0.999)"
            )
    return betas


def _read_residual(name: str, value: Any) -> str:
    if not (isinstance(value, str) and value in RESIDUALS):
        raise ValueError(f"Invalid residual: {value!r}. residual must be 'updated' or 'previous'")
    return str(value)


def _read_nonfinite(name: str, value: Any) -> str:
    if not (isinstance(value, str) and value in NONFINITE):
        raise ValueError(f"Invalid nonfinite: {value!r}. nonfinite must be 'propagate', 'skip' or 'raise'")
    return str(value)


def _read_max_update_to_lr(name: str, value: Any) -> float | None:
    if value is None:
        return None
    bound = _read_number(name, value)
    if not 0 < bound < math.inf:
        raise ValueError(
            f"Invalid max_update_to_lr: {bound}. It is the most that a step moves a weight, in multiples of lr: a "
            "finite number > 0, for example 10, or None for no bound"
        )
    return bound


def _read_master_weight_bits(name: str, value: Any) -> int:
    bits = _read_number(name, value)
    if bits not in MASTER_WEIGHT_BITS:
        raise ValueError(
            f"Invalid master_weight_bits: {bits}. Of a weight in bfloat16 or float16 a step works on 32 bits, 24, or "
            "16, which are rounded stochastically: give one of these numbers"
        )
    return int(bits)


def _read_state_bits(name: str, value: Any) -> int:
    bits = _read_number(name, value)
    if bits not in STATE_BITS:
        raise ValueError(
            f"Invalid state_bits: {bits}. Each number of m_t and s_t is kept in 32 bits, a float32, in 16, a "
            "bfloat16, or in 8, a code with a scale for each block of 128: give one of these numbers"
        )
    return int(bits)


def _read_rounding_seed(name: str, value: Any) -> int:
    seed = _read_number(name, value)
    if not (isinstance(seed, int) and 0 <= seed < 2**32):
        raise ValueError(f"Invalid rounding_seed: {seed}. It must be a whole number from 0 to 2**32 - 1")
    return seed


def _check_residual(betas: Any, residual: str) -> None:
    """Raise ValueError where beta1 is 0 and the residual would always be 0."""
    if as_number(betas[0]) == 0 and residual == "updated":
        raise ValueError(
            f"Invalid betas: {betas} with residual='updated'. With beta1 = 0 the residual g_t - m_t is "
            "always 0, only eps is left of s_t, and the step explodes; give residual='previous', which "
            "measures belief against m_(t-1)"
        )


def _read_warmup(name: str, value: Any) -> int | float:
    warmup = _read_number(name, value)
    if isinstance(warmup, int):
        if warmup < 0:
            raise ValueError(f"Invalid warmup: {warmup}. As an int it is a number of steps, 0 for none")
    elif not 0 <= warmup < 1:
        raise ValueError(
            f"Invalid warmup: {warmup}. As a float it is a fraction of total_steps, between 0 and 1; give "
            "an int for a number of steps"
        )
    return warmup


def _read_total_steps(name: str, value: Any) -> int | None:
    if value is None:
        return None
    total_steps = _read_number(name, value)
    if not (1 <= total_steps < math.inf and total_steps == int(total_steps)):
        raise ValueError(
            f"Invalid total_steps: {total_steps}. It is the run's number of steps, a whole number, 1 or more"
        )
    return int(total_steps)


def check_before_step(group: Mapping[str, Any]) -> None:
    """Check in a param group what may have been set, or is still missing, since it was added; no tensor is read.

    Args:
        group: A param group.

    Raises:
        ValueError: If an option that should be a number is none, ``state_bits`` is another than it may be, or the
            warmup is a fraction and there is no ``total_steps``.
    """
    warmup = group["warmup"]
    for value in (group["lr"], *group["betas"], group["eps"], group["weight_decay"], warmup):
        if not isinstance(value, NUMBER_TYPES):
            check_options(group)  # says which, and what to do
    if group["state_bits"] not in STATE_BITS:
        check_options(group)
    if is_fraction(warmup) and group["total_steps"] is None:
        raise ValueError(
            f"Invalid warmup: {warmup} without total_steps. A fraction of the run needs its length by the first "
            "step: give total_steps as well (in Lightning total_steps=int(self.trainer.estimated_stepping_batches)), "
            "let configure_adabelief(module, warmup=...) count it, or give warmup as a number of steps"
        )
