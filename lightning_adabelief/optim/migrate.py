"""The checkpoints of other optimizers, turned into AdaBelief's.

- ``adabelief-pytorch`` 0.2.1: ``step`` is an int, groups hold a cache named ``buffer`` and miss the
  options that its constructor kept to itself; those are taken from the optimizer that loads.
- ``torch.optim.Adam`` and ``AdamW``: s_t is estimated as v_t - m_t^2, never below 0, the running
  variance of the gradient; learning rate, betas, decay and steps go on where they were.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

STATE_KEYS = {"step", "exp_avg", "exp_avg_var", "max_exp_avg_var"}
ADAM_STATE_KEYS = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
ADAM_ONLY_OPTIONS = {"eps", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}


def to_adabelief(state_dict: dict[str, Any], param_groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn a state dict into one that AdaBelief can go on from.

    Args:
        state_dict: What ``Optimizer.state_dict`` returned; left as it is.
        param_groups: The groups of the optimizer that loads it, for options the saved ones lack.

    Returns:
        A new state dict; tensors that need no change are shared with ``state_dict``.

    Raises:
        ValueError: If the state is none of the known ones; it names the keys found.
    """
    state = {id_: dict(values) for id_, values in state_dict["state"].items()}
    groups = [dict(group) for group in state_dict["param_groups"]]
    found = set().union(*state.values())
    if not found <= STATE_KEYS:
        if not ({"exp_avg", "exp_avg_sq"} <= found <= ADAM_STATE_KEYS):
            raise ValueError(
                f"Cannot load this optimizer state: its keys are {sorted(found)}, AdaBelief's are "
                f"{sorted(STATE_KEYS)}. States of adabelief-pytorch and of torch.optim.Adam and AdamW are "
                "converted; for any other, start the optimizer anew"
            )
        warnings.warn(
            "Loading a state of Adam into AdaBelief: s_t is estimated as v_t - m_t^2; lr, betas and "
            "weight_decay come from the checkpoint, eps and AdaBelief's own options from this optimizer",
            stacklevel=2,
        )
        state = {id_: _from_adam(values) for id_, values in state.items()}
        groups = [{k: v for k, v in group.items() if k not in ADAM_ONLY_OPTIONS} for group in groups]
    for values in state.values():
        if "step" in values:
            values["step"] = torch.as_tensor(values["step"], dtype=torch.float32)
    for group, own in zip(groups, param_groups, strict=False):  # torch reports a wrong number itself
        group.pop("buffer", None)
        for name, value in own.items():
            if name not in ("params", "param_names"):
                group.setdefault(name, value)
    return {**state_dict, "state": state, "param_groups": groups}


def _from_adam(values: dict[str, Any]) -> dict[str, Any]:
    """Estimate s_t from Adam's moments; also where amsgrad kept their maximum."""
    converted: dict[str, Any] = {key: values[key] for key in ("step", "exp_avg") if key in values}
    if "exp_avg_sq" in values:
        exp_avg = values["exp_avg"]
        converted["exp_avg_var"] = (values["exp_avg_sq"] - exp_avg * exp_avg).clamp(min=0)
    if "max_exp_avg_sq" in values:
        converted["max_exp_avg_var"] = converted["exp_avg_var"].clone()
    return converted
