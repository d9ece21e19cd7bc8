"""Find optimizers in their wrappers, and read the state of any of them as AdaBelief's, as far as it goes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer, RAdam

from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.low_precision import MISSING_BITS

State = dict[str, Any]
Group = dict[str, Any]

ADAM_AVERAGES = ("exp_avg", "exp_avg_sq")


ADAM_OPTIONS = {"amsgrad": True, "rectify": False, "degenerated_to_sgd": False, "warmup": 0, "total_steps": None}
"""The options by which AdaBelief divides by ``max_exp_avg_var`` and adds nothing else to Adam's step."""


class Readable(IntEnum):
    """The part of a belief that an optimizer's state tells; each includes those before."""

    GRADIENT = 0
    """No second moment, as with SGD, Lion or Muon: gradients, weights and what a step does to them."""
    SECOND_MOMENT = 1
    """Adam's averages, from which s_t is estimated."""
    BELIEF = 2
    """AdaBelief's own state."""


def find_optimizers(optimizer: Any) -> list[Optimizer]:
    """Return the optimizers that step the parameters: those that a wrapper holds, or the optimizer itself.

    A wrapper, such as Lightning's and DeepSpeed's, or a Lookahead, is known by what it holds, not by its class:
    other optimizers, among its attributes or in a list or dict there, which have all its parameters.

    Args:
        optimizer: One of a Trainer's.

    Returns:
        One or more, each once.
    """
    found: dict[int, Optimizer] = {}
    seen: set[int] = set()

    def visit(candidate: Any) -> None:
        if id(candidate) in seen:
            return
        seen.add(id(candidate))
        inner = _held_optimizers(candidate)
        if not _parameters([candidate]) <= _parameters(inner):
            inner = []
        for each in inner:
            visit(each)
        if not inner:
            found[id(candidate)] = candidate

    visit(optimizer)
    return list(found.values())


def _parameters(optimizers: Iterable[Any]) -> set[Any]:
    groups = [group for optimizer in optimizers for group in getattr(optimizer, "param_groups", [])]
    return {param for group in groups for param in group["params"]}


def _held_optimizers(owner: Any) -> list[Any]:
    """Return the optimizers, and Lightning's wrappers of them, among an object's attributes."""
    values: list[Any] = []
    for value in getattr(owner, "__dict__", {}).values():
        if isinstance(value, list | tuple):
            values += value
        else:
            values += value.values() if isinstance(value, dict) else [value]
    return [value for value in values if isinstance(value, Optimizer) and value is not owner]


def find_readable(optimizer: Optimizer) -> Readable:
    """Return how much can be read of an optimizer that has taken a step.

    An optimizer counts as an Adam if each of its states has Adam's averages and its groups have two ``betas``
    and an ``eps``, whatever its class.
    """
    if isinstance(optimizer, AdaBelief):
        return Readable.BELIEF
    if isinstance(optimizer, Adam):
        return Readable.SECOND_MOMENT
    layers = [(param, group) for group in optimizer.param_groups for param in group["params"] if param.numel() > 0]
    states = [(param, optimizer.state.get(param), group) for param, group in layers]
    known = [_is_adam_state(param, state, group) for param, state, group in states if state]
    return Readable.SECOND_MOMENT if known and all(known) else Readable.GRADIENT


def has_known_rule(optimizer: Optimizer) -> bool:
    """True if a step without rounding follows from state, weight and gradient: of AdaBelief, Adam and AdamW."""
    return isinstance(optimizer, AdaBelief) or type(optimizer) in (Adam, AdamW)


def has_known_update(optimizer: Optimizer) -> bool:
    """True if the update follows from state, weight and gradient after the step, of an optimizer of a known rule.

    It does not where all that moves are weights of 16 bits, to nearest or stochastically: then rounding decides how
    far. With more ``master_weight_bits`` the update is that of the master weight.
    """
    return has_known_rule(optimizer) and all(
        group.get("master_weight_bits", 16) > 16 or not any(param.dtype in MISSING_BITS for param in group["params"])
        for group in optimizer.param_groups
    )


def read_state(optimizer: Optimizer, state: State, group: Group) -> tuple[State, Group]:
    """Return a parameter's state and group as AdaBelief has them.

    Args:
        optimizer: One of which more than the gradient is :class:`Readable`.
        state: A parameter's state in it, at least one step old.
        group: Its param group.

    Returns:
        AdaBelief's as they are. An Adam's state has ``exp_avg_sq`` in the place of ``exp_avg_var``, which is estimated
        where it is needed (:func:`~lightning_adabelief.optim.migrate.estimate_exp_avg_var`). The step is divided as
        Adam divides it, since ``max_exp_avg_var`` is v_t, or the largest v_t so far.
    """
    if isinstance(optimizer, AdaBelief):
        return state, group
    # timm's and pytorch-optimizer's count the steps in the group
    values = {"step": state.get("step", group.get("step")), **{name: state[name] for name in ADAM_AVERAGES}}
    values["max_exp_avg_var"] = state.get("max_exp_avg_sq", state["exp_avg_sq"])
    options = {name: group[name] for name in ("lr", "betas", "eps")} | ADAM_OPTIONS
    if isinstance(optimizer, RAdam):
        options |= {"rectify": True, "degenerated_to_sgd": True}
    # AdamW, or an Adam told to decay as AdamW does
    decouples = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    decay = {"weight_decay": group.get("weight_decay", 0.0), "weight_decouple": decouples, "fixed_decay": False}
    others = {"maximize": group.get("maximize", False), "residual": "updated"}
    return values, options | decay | others


def _is_adam_state(param: Tensor, state: State, group: Group) -> bool:
    """True if a state has what Adam's has, as plain tensors of the parameter's shape."""
    averages = [state.get(name) for name in ADAM_AVERAGES]
    has_averages = all(
        isinstance(average, Tensor) and average.shape == param.shape and is_plain(average) for average in averages
    )
    has_step = isinstance(state.get("step", group.get("step")), int | float | Tensor)
    has_options = (
        len(group.get("betas", ())) == 2
        and isinstance(group.get("eps"), float | int)
        and isinstance(group.get("lr"), float | int | torch.Tensor)
    )
    return has_averages and has_step and has_options


def is_plain(tensor: Tensor) -> bool:
    """True if a tensor holds its numbers as they are, sharded or not: it is neither quantized nor of integers."""
    of_numbers = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    return of_numbers and (type(tensor) in (Tensor, torch.nn.Parameter) or hasattr(tensor, "full_tensor"))
