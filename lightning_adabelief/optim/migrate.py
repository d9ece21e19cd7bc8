"""Convert the checkpoints of other optimizers into AdaBelief's.

- ``adabelief-pytorch`` 0.0.5 to 0.2.1: ``step`` is an int, groups may hold a cache named ``buffer``
  and miss the options that its constructor kept to itself.
- timm's ``AdaBelief``: the same state; ``weight_decouple`` is called ``decoupled_decay``.
- pytorch-optimizer's ``AdaBelief``: ``amsgrad`` is called ``ams_bound``, and the group counts the steps.
- ``torch.optim.Adam``, ``AdamW``, and others that keep just Adam's moments: s_t is estimated as
  v_t - m_t^2, the running variance of the gradient (both moments bias-corrected), but never below
  (1 - beta2) v_t, the weight that a single gradient has in s_t. Where gradients have agreed so far
  the variance is 0, and without this floor the first step would have no bound; with it, it is at
  most 1 / sqrt(1 - beta2) times Adam's.

Options that a checkpoint lacks are taken from the optimizer that loads it. All go on as they would
have where they came from, except where the original and timm ignore ``amsgrad`` (with ``rectify``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

AVERAGES = {"exp_avg", "exp_avg_var"}
ADAM_AVERAGES = {"exp_avg", "exp_avg_sq"}

State = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """How another optimizer's checkpoint differs from AdaBelief's.

    Attributes:
        name: The other optimizer.
        change: The conversion in words, for the warning.
        required: Keys in the state of every parameter.
        optional: Further keys that may be in it.
        convert: Turns a parameter's state and its param group into a state of AdaBelief.
        renamed: Maps the names of group options to their names in AdaBelief.
        dropped: Keys of its param groups that are left out.
    """

    name: str
    change: str
    required: set[str]
    optional: set[str]
    convert: Callable[[State, dict[str, Any]], State]
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


def _keep_state(values: State, _: dict[str, Any]) -> State:
    return values


def _add_group_step(values: State, group: dict[str, Any]) -> State:
    return {"step": group["step"], **values}


def _from_adam(values: State, group: dict[str, Any]) -> State:
    step = float(values["step"])
    bias_correction1, bias_correction2 = (1 - float(beta) ** step for beta in group["betas"])
    trend, square = values["exp_avg"] / bias_correction1, values["exp_avg_sq"] / bias_correction2
    variance = torch.maximum(square - trend * trend, (1 - float(group["betas"][1])) / bias_correction2 * square)
    exp_avg_var = variance * bias_correction2
    converted = {"step": values["step"], "exp_avg": values["exp_avg"], "exp_avg_var": exp_avg_var}
    if "max_exp_avg_sq" in values:
        converted["max_exp_avg_var"] = exp_avg_var.clone()
    return converted


ADABELIEF_PYTORCH = Origin(
    name="adabelief-pytorch",
    change="its state is taken as it is",
    required={"step", *AVERAGES},
    optional={"max_exp_avg_var"},
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
    dropped={"foreach"},
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
    change="s_t is estimated as v_t - m_t^2, the running variance",
    required={"step", *ADAM_AVERAGES},
    optional={"max_exp_avg_sq"},
    convert=_from_adam,
    # Adam's eps stands elsewhere in the rule, and is far too large for this one.
    dropped={"eps", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"},
)

ADAM_OPTIONS = {"amsgrad": True, "rectify": False, "degenerated_to_sgd": False, "warmup": 0, "total_steps": None}
"""The options by which AdaBelief divides by ``max_exp_avg_var`` and adds nothing else to Adam's step."""


def to_adabelief(state_dict: dict[str, Any], param_groups: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """Convert a state dict into one that AdaBelief can go on from.

    Args:
        state_dict: A result of ``Optimizer.state_dict``; left as it is.
        param_groups: The groups of the optimizer that loads it, for options the saved ones lack.

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
        state = _convert_state(origin, state, groups)
        groups = [_convert_options(origin, group) for group in groups]
        taken = ", ".join(sorted(set(groups[0]) & set(param_groups[0]) - {"params", "param_names"}))
        change = (
            f"Loaded a checkpoint of {origin.name} into AdaBelief: {origin.change}; {taken} come from the "
            "checkpoint, all other options from this optimizer"
        )
    for group, own in zip(groups, param_groups, strict=False):  # check_group_sizes reports a wrong number
        for name, value in own.items():
            if name not in ("params", "param_names"):
                group.setdefault(name, value)
        if group["total_steps"] is None:  # saved before the length of the run was known
            group["total_steps"] = own["total_steps"]
    return {**state_dict, "state": state, "param_groups": groups}, change


def adam_as_adabelief(state: State, group: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """See what AdaBelief would believe in the state of a torch.optim.Adam or AdamW at work.

    Args:
        state: A parameter's state, at least one step old; left as it is.
        group: Its param group.

    Returns:
        A state whose ``exp_avg_var`` is s_t estimated as v_t - m_t^2, and a group of AdaBelief's,
        by which a step is still divided as Adam divides it: by v_t, or the largest so far.
    """
    seen = _from_adam(state, group)
    seen["max_exp_avg_var"] = state.get("max_exp_avg_sq", state["exp_avg_sq"])
    options = {name: group[name] for name in ("lr", "betas", "eps")}
    return seen, options | ADAM_OPTIONS


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
            "timm's, pytorch-optimizer's) and of torch.optim.Adam and AdamW can be loaded; for any other, start "
            "the optimizer anew"
        )
    return origin


def _convert_state(origin: Origin, state: dict[Any, State], groups: list[dict[str, Any]]) -> dict[Any, State]:
    group_of = {id_: group for group in groups for id_ in group["params"]}
    return {id_: origin.convert(values, group_of[id_]) for id_, values in state.items()}


def _convert_options(origin: Origin, group: dict[str, Any]) -> dict[str, Any]:
    return {origin.renamed.get(name, name): value for name, value in group.items() if name not in origin.dropped}
