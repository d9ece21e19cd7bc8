"""Convert the checkpoints of other optimizers into AdaBelief's.

- ``adabelief-pytorch`` 0.0.5 to 0.2.1: ``step`` is an int, groups may hold a cache named ``buffer``
  and miss the options that its constructor kept to itself. 0.0.5 has a cache in each parameter's state.
- timm's ``AdaBelief``: the same state; ``weight_decouple`` is called ``decoupled_decay``. Groups of old releases hold
  the same cache.
- pytorch-optimizer's ``AdaBelief``: ``amsgrad`` is called ``ams_bound``, and the group counts the steps.
- ``torch.optim.Adam``, ``AdamW``, ``RAdam``, and others that keep just Adam's moments: s_t is
  estimated from them (:func:`estimate_exp_avg_var`), and has the eps of the optimizer that loads it
  as if it had accumulated in all steps so far.

Options that a checkpoint lacks are taken from the optimizer that loads it. All go on as they would
have where they came from, except where the original and timm ignore ``amsgrad`` (with ``rectify``), and for
three peculiarities of old releases of ``adabelief-pytorch``: 0.0.5 rectifies earlier and corrects the bias before it
adds eps; under ``amsgrad`` 0.0.5 and 0.1.0 let eps accumulate in the largest s_t alone; and coupled weight decay
has no effect in 0.1.0 (``weight_decay=0`` goes on as it did). ``tests/optim/test_versions.py`` has runs of all
releases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.rule import residual_scale
from lightning_adabelief.optim.shards import full_tensor

AVERAGES = {"exp_avg", "exp_avg_var"}
ADAM_AVERAGES = {"exp_avg", "exp_avg_sq"}
RECTIFICATION_CACHE = {"rho_inf", "rho_t"}
"""Numbers of the step that adabelief-pytorch 0.0.5 keeps in each parameter's state."""

State = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """The differences between another optimizer's checkpoint and AdaBelief's.

    Attributes:
        name: The other optimizer.
        change: The conversion in words, for the warning.
        required: Keys in the state of every parameter.
        optional: Further keys that may be in it.
        convert: Turns a parameter's state into one of AdaBelief, given its param group there and the
            one here.
        renamed: Maps the names of group options to their names in AdaBelief.
        dropped: Keys of its param groups that are left out.
    """

    name: str
    change: str
    required: set[str]
    optional: set[str]
    convert: Callable[[State, dict[str, Any], dict[str, Any]], State]
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


def _keep_state(values: State, group: dict[str, Any], own_group: dict[str, Any]) -> State:
    return {name: value for name, value in values.items() if name not in RECTIFICATION_CACHE}


def _add_group_step(values: State, group: dict[str, Any], own_group: dict[str, Any]) -> State:
    return {"step": group["step"], **values}


def _from_adam(values: State, group: dict[str, Any], residual: str, eps: float) -> State:
    """Estimate the state of an AdaBelief that had run in Adam's place (see :func:`estimate_exp_avg_var`)."""
    step = float(values["step"])
    exp_avg, exp_avg_sq = values["exp_avg"], values["exp_avg_sq"]
    exp_avg_var = estimate_exp_avg_var(exp_avg, exp_avg_sq, step, group["betas"], residual)
    converted = {"step": values["step"], "exp_avg": exp_avg, "exp_avg_var": exp_avg_var}
    if "max_exp_avg_sq" in values:  # the largest s_t exceeds the present one as the largest v_t exceeds v_t
        growth = torch.where(exp_avg_sq > 0, values["max_exp_avg_sq"] / exp_avg_sq, 1.0)
        converted["max_exp_avg_var"] = exp_avg_var * growth
    beta2 = as_number(group["betas"][1])
    accumulated_eps = eps * (1 - beta2**step) / (1 - beta2)
    return converted | {name: value + accumulated_eps for name, value in converted.items() if name.endswith("_var")}


def estimate_exp_avg_var(
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: float,
    betas: Sequence[float | Tensor],
    residual: str,
    agreement: Tensor | None = None,
) -> Tensor:
    r"""Estimate s_t from Adam's moments, without eps.

    Let a gradient be a mean mu and noise of variance sigma^2. Once the averages have settled,

    .. math::
        E[v_t - m_t^2] = \sigma^2 \frac{2 \beta_1}{1+\beta_1}, \quad
        E[s_t] = c^2 \sigma^2 \frac{2}{1+\beta_1},

    where c is beta1 for the updated residual, since g_t - m_t = beta1 (g_t - m_{t-1}), and 1 for the
    previous one. So s_t is c^2 / beta1 (v_t - m_t^2); for the updated residual E[g^2] = s/beta1 + m^2.

    For one weight this estimate is unsafe: m_t^2 scatters about its mean, and where it happens to come
    near v_t the next step would be many times too long. It is therefore bounded, in units of v_t:

    - from below by the same estimate from the sums over the tensor, c^2 / beta1 (1 - sum m^2 / sum v);
    - that in turn by c^2 times the weight of one gradient in v_t, (1 - beta2) / (1 - beta2^t). At step 1
      this is exact, and it bounds the step where all gradients of a tensor have been alike;
    - from above by 2 c^2 / (1 + beta1), the ratio for mu = 0.

    Args:
        exp_avg: Adam's m_t, any shape; may be complex, a pair of real numbers, or a DTensor (then every
            rank must call).
        exp_avg_sq: Adam's v_t, like ``exp_avg``.
        step: The number of steps taken, at least 1.
        betas: Adam's decay rates. With beta1 = 0, m_t is the last gradient and tells nothing of mu; the
            result is then the upper bound.
        residual: ``"updated"`` or ``"previous"``.
        agreement: That of the whole tensor (:func:`measure_agreement`), where the averages are those of a part.

    Returns:
        s_t, without bias correction, like ``exp_avg``, but in float32 at least.
    """
    dtype = torch.promote_types(exp_avg.dtype, torch.float32)
    exp_avg, exp_avg_sq = exp_avg.to(dtype), exp_avg_sq.to(dtype)  # in 16 bits v_t - m_t^2 would be mostly rounding
    beta1, beta2 = map(as_number, betas)
    bias_correction1, bias_correction2 = 1 - beta1**step, 1 - beta2**step
    m, v = (torch.view_as_real(t) if t.is_complex() else t for t in (exp_avg, exp_avg_sq))
    c = residual_scale(residual, beta1)
    upper_bound = 2 * c * c / (1 + beta1) * v
    if beta1 == 0:
        exp_avg_var = upper_bound
    else:
        if agreement is None:
            agreement = measure_agreement(m, v, step, betas)
        weight_of_one_gradient = (1 - beta2) / bias_correction2
        lower_bound = (c * c / beta1 * (1 - agreement)).clamp(min=c * c * weight_of_one_gradient) * v
        difference = torch.addcmul(v, m, m, value=-bias_correction2 / bias_correction1**2)
        exp_avg_var = torch.minimum(torch.maximum(c * c / beta1 * difference, lower_bound), upper_bound)
    return torch.view_as_complex(exp_avg_var) if exp_avg.is_complex() else exp_avg_var


def measure_agreement(exp_avg: Tensor, exp_avg_sq: Tensor, step: float, betas: Sequence[float | Tensor]) -> Tensor:
    """Return how far the gradients of a tensor have agreed: sum m_t^2 / sum v_t, both bias-corrected.

    Args:
        exp_avg: Adam's m_t, any shape, real; may be a DTensor.
        exp_avg_sq: Adam's v_t, like ``exp_avg``.
        step: The number of steps taken, at least 1.
        betas: Adam's decay rates.

    Returns:
        A 0-dim tensor: 1 where all have been alike, near 0 on noise, and 0 where there were none.
    """
    beta1, beta2 = map(as_number, betas)
    dtype = torch.promote_types(exp_avg.dtype, torch.float32)
    trend_square = (full_tensor(torch.linalg.vector_norm(exp_avg, dtype=dtype)) / (1 - beta1**step)).square()
    square = full_tensor(exp_avg_sq.sum(dtype=dtype)) / (1 - beta2**step)
    return torch.where(square > 0, trend_square / square, 0.0)


ADABELIEF_PYTORCH = Origin(
    name="adabelief-pytorch",
    change="its state is taken as it is",
    required={"step", *AVERAGES},
    optional={"max_exp_avg_var", *RECTIFICATION_CACHE},
    convert=_keep_state,
    dropped={"buffer"},
)
TIMM = Origin(
    name="timm's AdaBelief",
    change="its decoupled_decay is weight_decouple here",
    required={"step", *AVERAGES},
    optional={"max_exp_avg_var"},
    convert=_keep_state,
    renamed={"decoupled_decay": "weight_decouple"},
    dropped={"buffer", "foreach"},
)
PYTORCH_OPTIMIZER = Origin(
    name="pytorch-optimizer's AdaBelief",
    change="its ams_bound is amsgrad here, and its groups' step is each parameter's",
    required=AVERAGES,
    optional={"max_exp_avg_var"},
    convert=_add_group_step,
    renamed={"ams_bound": "amsgrad"},
    dropped={"foreach", "step"},
)
ADAM = Origin(
    name="Adam",
    change="s_t is estimated from the scatter of its gradients, v_t - m_t^2",
    required={"step", *ADAM_AVERAGES},
    optional={"max_exp_avg_sq"},
    convert=lambda values, group, own: _from_adam(values, group, own["residual"], own["eps"]),
    # Adam's eps stands elsewhere in the rule, and is far too large for this one.
    dropped={"eps", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"},
)


def to_adabelief(state_dict: dict[str, Any], param_groups: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """Convert a state dict into one that AdaBelief can go on from.

    Args:
        state_dict: A result of ``Optimizer.state_dict``; left as it is.
        param_groups: The groups of the optimizer that loads it, as many and as large, for options that
            the saved ones lack.

    Returns:
        A new state dict, whose tensors are shared with ``state_dict`` where they need no change;
        and the conversion in words, ``None`` where it was AdaBelief's own.

    Raises:
        ValueError: If the state is none of the known ones; it names the keys found.
    """
    state, groups = dict(state_dict["state"]), [dict(group) for group in state_dict["param_groups"]]
    change = None
    if not all("residual" in group for group in groups):  # which no other optimizer has
        state = {id_: values for id_, values in state.items() if values}
        origin = _find_origin(state, groups)
        state = _convert_state(origin, state, groups, param_groups)
        groups = [_convert_options(origin, group) for group in groups]
        taken = ", ".join(sorted(set(groups[0]) & set(param_groups[0]) - {"params", "param_names"}))
        change = (
            f"Loaded a checkpoint of {origin.name} into AdaBelief: {origin.change}; {taken} come from the "
            "checkpoint, all other options from this optimizer"
        )
    for group, own in zip(groups, param_groups, strict=True):
        for name, value in own.items():
            if name not in ("params", "param_names"):
                group.setdefault(name, value)
        if group["total_steps"] is None:  # saved before the length of the run was known
            group["total_steps"] = own["total_steps"]
    return {**state_dict, "state": state, "param_groups": groups}, change


def _find_origin(state: dict[Any, State], groups: list[dict[str, Any]]) -> Origin:
    """Recognize by its keys the optimizer that a checkpoint is from."""
    state_keys, group_keys = set().union(*state.values()), set().union(*groups)
    if "decoupled_decay" in group_keys:
        origin = TIMM
    elif "ams_bound" in group_keys:
        origin = PYTORCH_OPTIMIZER
    elif "exp_avg_sq" in state_keys or "decoupled_weight_decay" in group_keys:
        origin = ADAM
    else:
        origin = ADABELIEF_PYTORCH
    known = all(origin.required <= values.keys() <= origin.required | origin.optional for values in state.values())
    if not known or "betas" not in group_keys:
        raise ValueError(
            f"Cannot load this optimizer state: the keys of its parameters' states are {sorted(state_keys)}, of "
            f"its param groups {sorted(group_keys)}. Checkpoints of AdaBelief (this one, adabelief-pytorch's, "
            "timm's, pytorch-optimizer's) and of torch.optim.Adam, AdamW and RAdam can be loaded; for any other, "
            "start the optimizer anew"
        )
    return origin


def _convert_state(
    origin: Origin, state: dict[Any, State], groups: list[dict[str, Any]], own_groups: list[dict[str, Any]]
) -> dict[Any, State]:
    groups_of = {id_: both for both in zip(groups, own_groups, strict=True) for id_ in both[0]["params"]}
    return {id_: origin.convert(values, *groups_of[id_]) for id_, values in state.items()}


def _convert_options(origin: Origin, group: dict[str, Any]) -> dict[str, Any]:
    return {origin.renamed.get(name, name): value for name, value in group.items() if name not in origin.dropped}
