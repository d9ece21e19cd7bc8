"""The AdaBelief that differs from a given Adam, AdamW or RAdam in belief alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer, RAdam

from lightning_adabelief.optim.fused import can_fuse
from lightning_adabelief.optim.migrate import _from_adam
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.state import make_step, state_dtype

KEPT_OPTIONS = ("betas", "maximize", "amsgrad", "foreach", "capturable", "differentiable")
"""The options that mean the same in Adam and in AdaBelief."""

ADAM_OPTIONS = {*KEPT_OPTIONS, "lr", "eps", "weight_decay", "decoupled_weight_decay", "fused", "params", "param_names"}
"""The keys of Adam's param groups; any other, such as a scheduler's, is carried over."""


def check_convertible(optimizer: Optimizer) -> None:
    """Check that there is an AdaBelief that differs from an optimizer in belief alone.

    Args:
        optimizer: Of any kind.

    Raises:
        ValueError: If it is no ``torch.optim.Adam``, ``AdamW`` or ``RAdam``.
    """
    if not isinstance(optimizer, Adam | AdamW | RAdam):
        raise ValueError(
            f"AdaBelief.like was given a {type(optimizer).__name__}, from which AdaBelief differs in more than belief. "
            "Give a torch.optim.Adam, AdamW or RAdam, or construct AdaBelief with the options you want"
        )


def noise_matching_factor(beta1: float, residual: str) -> float:
    r"""Return the factor of lr by which AdaBelief moves as far as Adam on pure noise.

    On noise of variance sigma^2, v_t is sigma^2, and s_t averages (c (g_t - m_{t-1}))^2, where c is
    beta1 for the updated residual and 1 for the previous one. m_{t-1} has the variance
    sigma^2 (1 - beta1) / (1 + beta1) and is independent of g_t, so

    .. math:: E[s_t] = c^2 \sigma^2 \frac{2}{1+\beta_1}, \quad \sqrt{s_t / v_t} = c \sqrt{2/(1+\beta_1)}.

    Args:
        beta1: Decay rate of m_t.
        residual: ``"updated"`` or ``"previous"``.

    Returns:
        That ratio: 0.923 at beta1 = 0.9, 0.577 at 0.5 (updated); 1.026 and 1.155 (previous).
    """
    c = beta1 if residual == "updated" else 1.0
    return c * math.sqrt(2 / (1 + beta1))


def convert_options(
    options: Mapping[str, Any], *, decoupled_weight_decay: bool, rectify: bool, match_noise: bool = False
) -> dict[str, Any]:
    """Convert the options of an Adam into those of the AdaBelief that differs in belief alone.

    Args:
        options: ``lr``, ``betas``, ``eps``, ``weight_decay``, and any others that AdaBelief has too.
        decoupled_weight_decay: True if the decay acts on the weight, as AdamW's.
        rectify: True for RAdam.
        match_noise: Scale lr by :func:`noise_matching_factor`, and decoupled decay by its inverse.

    Returns:
        AdaBelief's options. Its eps acts under the root and accumulates to eps / (1 - beta2), so Adam's
        eps e becomes e^2 (1 - beta2), whose accumulated root is e.
    """
    beta1, beta2 = (as_number(beta) for beta in options["betas"])
    residual = "updated" if beta1 > 0 else "previous"  # with beta1 = 0 the updated residual is always 0
    lr, weight_decay = options["lr"], options["weight_decay"]
    lr = lr.clone() if isinstance(lr, Tensor) else lr
    if match_noise:
        factor = noise_matching_factor(beta1, residual)
        lr = lr * factor
        weight_decay = weight_decay / factor if decoupled_weight_decay else weight_decay
    return {name: options[name] for name in KEPT_OPTIONS if name in options} | {
        "lr": lr,
        "eps": options["eps"] ** 2 * (1 - beta2),
        "weight_decay": weight_decay,
        "weight_decouple": decoupled_weight_decay,
        "rectify": rectify,
        "residual": residual,
    }


def adabelief_like(cls: Any, optimizer: Optimizer, match_noise: bool) -> Any:
    """Make an AdaBelief of class ``cls``; see :meth:`lightning_adabelief.AdaBelief.like`."""
    check_convertible(optimizer)
    groups = [_convert_group(optimizer, group, match_noise) for group in optimizer.param_groups]
    made = cls(groups, **_convert_own_options(optimizer, optimizer.defaults, match_noise))
    for group in made.param_groups:
        for param in group["params"]:
            if optimizer.state.get(param):
                made.state[param] = _convert_state(optimizer.state[param], param, group)
    return made


def _convert_group(optimizer: Optimizer, group: dict[str, Any], match_noise: bool) -> dict[str, Any]:
    """Convert a param group, with its parameters, their names and all keys that are no option of Adam."""
    params = group["params"]
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    others = {name: value for name, value in group.items() if name not in ADAM_OPTIONS}
    if match_noise and "initial_lr" in others:  # a scheduler multiplies it
        initial = {**group, "lr": others["initial_lr"]}
        others["initial_lr"] = _convert_own_options(optimizer, initial, match_noise)["lr"]
    fused = bool(group.get("fused")) and can_fuse(group["params"])
    return others | _convert_own_options(optimizer, group, match_noise) | {"params": params, "fused": fused or None}


def _convert_own_options(optimizer: Optimizer, options: dict[str, Any], match_noise: bool) -> dict[str, Any]:
    # Until torch 2.7 AdamW was a class of its own, without the option.
    decoupled = options.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    rectify = isinstance(optimizer, RAdam)
    return convert_options(options, decoupled_weight_decay=decoupled, rectify=rectify, match_noise=match_noise)


def _convert_state(state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """Convert a parameter's state, for a group of AdaBelief; the tensors are copies."""
    moments = {
        name: value if name == "step" else value.to(state_dtype(param), copy=True) for name, value in state.items()
    }
    converted = _from_adam(moments, group, group["residual"], group["eps"])
    return converted | {"step": make_step(state["step"], param, group).clone()}
