"""Load a state dict: parameters are found by name, all is checked first, and an error changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from lightning_adabelief.optim.averages import convert_average, fits
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS
from lightning_adabelief.optim.migrate import ADAM_AVERAGES, AVERAGES, to_adabelief
from lightning_adabelief.optim.names import plain_name, shorten_names
from lightning_adabelief.optim.options import IMPLEMENTATION_OPTIONS, check_options, make_plain
from lightning_adabelief.optim.packing import is_packed, read_scales
from lightning_adabelief.optim.shards import to_local
from lightning_adabelief.optim.state import make_step, state_dtype

Group = dict[str, Any]

NOT_NEGATIVE = {"exp_avg_var", "max_exp_avg_var", "exp_avg_sq", "max_exp_avg_sq"}
"""The averages of squares, of this optimizer and of Adam."""

AVERAGES_HERE = {*AVERAGES, "max_exp_avg_var"}
"""The averages of this optimizer, which can be packed."""

OF_PARAM_SHAPE = AVERAGES | ADAM_AVERAGES | NOT_NEGATIVE
"""The tensors of a state that have their parameter's shape."""


def load_whole(optimizer: Optimizer, state_dict: Any, load: Callable[[dict[str, Any]], None]) -> str | None:
    """Load a state dict into an AdaBelief, in the dtypes and on the devices that its state has here.

    Args:
        optimizer: The AdaBelief; left as it is if an error is raised.
        state_dict: Of AdaBelief or of an optimizer that :mod:`~lightning_adabelief.optim.migrate` knows.
        load: torch's ``Optimizer.load_state_dict`` of this optimizer, which runs the user's hooks.

    Returns:
        The conversion in words; ``None`` if the state dict was an AdaBelief's.

    Raises:
        ValueError: If the state dict does not fit the optimizer; it names the group or the parameter.
    """
    _check_layout(state_dict)
    saved: dict[str, Any] = {}
    change = None

    def adapt(_: Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
        nonlocal saved, change
        groups = match_groups(loaded["param_groups"], optimizer.param_groups)
        check_state(loaded["state"], groups, optimizer.param_groups)
        saved, change = to_adabelief({**loaded, "param_groups": groups}, optimizer.param_groups)
        for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            if not _is_count(group.get("skipped_steps", 0)):
                raise ValueError(
                    f"Cannot load skipped_steps={group['skipped_steps']!r:.80} of a param group, which must be a whole "
                    "number, 0 or more. The checkpoint is damaged; nothing was loaded"
                )
            group.update({name: own[name] for name in IMPLEMENTATION_OPTIONS})
            group.update(check_options(group))
        return saved

    # Last of the pre-hooks and first of the post-hooks: the user's own see what they expect.
    hooks = (
        optimizer.register_load_state_dict_pre_hook(adapt),
        optimizer.register_load_state_dict_post_hook(lambda _: _restore_state(optimizer, saved), prepend=True),
    )
    before = optimizer.state, optimizer.param_groups  # torch puts new ones in their places
    try:
        load(state_dict)
    except BaseException:
        optimizer.state, optimizer.param_groups = before
        raise
    finally:
        for hook in hooks:
            hook.remove()
    return change


def _check_layout(state_dict: Any) -> None:
    """Raise ValueError unless a value is laid out as the result of ``Optimizer.state_dict`` is."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        found = f"the keys {sorted(map(str, state_dict))}" if isinstance(state_dict, Mapping) else repr(state_dict)
        raise ValueError(
            f"Cannot load {found:.200} into AdaBelief. It takes what optimizer.state_dict() returned, with 'state' and "
            "'param_groups'; in a checkpoint of Lightning's that is checkpoint['optimizer_states'][0]"
        )
    groups, state = state_dict["param_groups"], state_dict["state"]
    if not (isinstance(state, Mapping) and isinstance(groups, Sequence) and all(map(_is_group, groups))):
        raise ValueError(
            "Cannot load this state dict into AdaBelief: its 'param_groups' must be a list of dicts with 'params', and "
            "its 'state' a dict; it was changed, or is no optimizer's"
        )


def _is_group(group: Any) -> bool:
    return isinstance(group, Mapping) and isinstance(group.get("params"), Sequence)


def match_groups(saved: Sequence[Group], own: Sequence[Group]) -> list[Group]:
    """Put a checkpoint's param groups, and the parameters in them, in the optimizer's order.

    By name, where both have names and share any; otherwise they are in that order already, as torch.optim
    has it. torch.distributed.checkpoint gives names as the ids of parameters, in the optimizer's order.

    Args:
        saved: The checkpoint's param groups; left as they are.
        own: The optimizer's.

    Returns:
        Groups as many and as large as ``own``, with its names where it has some.

    Raises:
        ValueError: If there are other groups, or the names of some parameters, not of all, are found.
    """
    already_in_order = any(isinstance(id_, str) for group in saved for id_ in group["params"])
    saved_names, own_names = _read_names(saved), _read_names(own)
    if saved_names and own_names and not already_in_order:
        unknown, missing = _subtract(saved_names, own_names), _subtract(own_names, saved_names)
        if len(unknown) < sum(map(len, saved_names)):  # else all were renamed
            return _match_by_name(saved, saved_names, own, own_names, unknown, missing)
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in own]:
        raise ValueError(_describe_groups(saved, own))
    return [_rename(group, group["params"], mine) for group, mine in zip(saved, own, strict=True)]


def _match_by_name(
    saved: Sequence[Group],
    saved_names: list[list[str]],
    own: Sequence[Group],
    own_names: list[list[str]],
    unknown: list[str],
    missing: list[str],
) -> list[Group]:
    """Find for each group of the optimizer the saved one with the same names, and put it in the same order."""
    if sorted(map(len, saved_names)) != sorted(map(len, own_names)):
        raise ValueError(_describe_groups(saved, own))
    if unknown:
        raise ValueError(
            "The checkpoint has states of parameters that this optimizer does not have: "
            f"{shorten_names(unknown)}; and none of {shorten_names(missing)}. Rename them in the checkpoint's "
            "'param_names', or remove 'param_names' from its "
            "groups to have the states taken in order"
        )
    groups_by_names: dict[frozenset[str], list[int]] = defaultdict(list)
    for index, names in enumerate(saved_names):
        groups_by_names[frozenset(names)].append(index)
    matched = []
    for names, mine in zip(own_names, own, strict=True):
        indices = groups_by_names[frozenset(names)]
        if not indices:
            raise ValueError(_describe_groups(saved, own))
        index = indices.pop(0)
        ids = dict(zip(saved_names[index], saved[index]["params"], strict=True))
        matched.append(_rename(saved[index], [ids[name] for name in names], mine))
    return matched


def _subtract(names: list[list[str]], others: list[list[str]]) -> list[str]:
    """Return the names, of all groups, that are not among the others."""
    return sorted(set().union(*names) - set().union(*others))


def _read_names(groups: Sequence[Group]) -> list[list[str]] | None:
    """Return the plain names of the parameters by group; None unless all have names, and each its own."""
    if not all(len(group.get("param_names", ())) == len(group["params"]) for group in groups):
        return None
    names = [[plain_name(name) for name in group.get("param_names", ())] for group in groups]
    return names if len(set().union(*names)) == sum(map(len, names)) else None


def _rename(group: Group, ids: list[Any], own: Group) -> Group:
    """Return a saved group with its parameters in an order, and with the names that they have here."""
    return {**group, "params": ids} | ({"param_names": own["param_names"]} if "param_names" in own else {})


def _describe_groups(saved: Sequence[Group], own: Sequence[Group]) -> str:
    """Return the error's message where a checkpoint has other param groups than the optimizer."""
    in_checkpoint, here = (
        ", ".join(f"{group.get('name', 'unnamed')} ({len(group['params'])} parameters)" for group in groups)
        for groups in (saved, own)
    )
    return (
        f"The checkpoint's param groups are not this optimizer's: {in_checkpoint} in the checkpoint, {here} here. "
        "configure_adabelief groups by weight_decay (0, or more), decay_embeddings, layers and layer_decay, and leaves "
        "out what is frozen: give these as the checkpoint's run had them, or, for a checkpoint of another optimizer, "
        "its groups to AdaBelief itself"
    )


def check_state(state: Mapping[Any, Any], groups: Sequence[Group], own: Sequence[Group]) -> None:
    """Check the state of every parameter in a checkpoint: its keys, and what each can be.

    Args:
        state: From a parameter's id in the checkpoint to its state.
        groups: The checkpoint's param groups, in the optimizer's order.
        own: The optimizer's.

    Raises:
        ValueError: If a step is no count, or an average is no tensor of numbers of its parameter's shape
            and kind, or is of squares and negative; it names the parameter, what was found and the remedy.
    """
    ours = all("residual" in group for group in groups)  # which no other optimizer has
    for number, (group, mine) in enumerate(zip(groups, own, strict=True)):
        names = mine.get("param_names") or [f"{i} of param group {number}" for i in range(len(mine["params"]))]
        for id_, name, param in zip(group["params"], names, mine["params"], strict=True):
            values = state.get(id_, {})
            problem = _find_problem(values, param, {"step", *AVERAGES} if ours else set())
            if problem:
                raise ValueError(
                    f"Cannot load the state of parameter {name}, of shape {tuple(param.shape)} and {param.dtype}: "
                    f"{problem}. The checkpoint is of another model, or damaged; nothing was loaded"
                )


def _find_problem(values: Any, param: Tensor, required: set[str]) -> str | None:
    """Say what is wrong with a parameter's state; None if nothing is, or there is none."""
    if not isinstance(values, Mapping):
        return f"it is {values!r:.80}, and no dict"
    if not values:
        return None
    missing = required - values.keys()
    if missing:
        return f"it has no {', '.join(sorted(missing))}, only {', '.join(sorted(map(str, values)))}"
    if "step" in values and not _is_count(values["step"]):
        return f"its step is {values['step']!r:.80}, and must be a whole number, 0 or more"
    keys = sorted((OF_PARAM_SHAPE | CORRECTIONS.keys()) & values.keys())
    problems = (_find_tensor_problem(key, values[key], param) for key in keys)
    return next(filter(None, problems), None)


def _is_count(step: Any) -> bool:
    """True if a step is a whole number >= 0, as a number or in a tensor."""
    if isinstance(step, Tensor):
        if step.numel() != 1 or step.is_complex():
            return False
        if step.is_meta:  # holds no number
            return True
        step = step.item()
    step = make_plain(step)
    return isinstance(step, Real) and not isinstance(step, bool) and float(step) >= 0 and float(step).is_integer()


def _find_tensor_problem(key: str, value: Any, param: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return f"its {key} is a {type(value).__name__}, and no tensor"
    if key in AVERAGES_HERE and is_packed(value):
        if not fits(value, param):
            return f"its {key} is packed in bytes of shape {tuple(value.shape)}"
        if not value.is_meta and (read_scales(to_local(value), to_local(param).shape) < 0).any():
            return f"its {key}, which is packed, has a negative scale"
        return None
    if value.shape != param.shape or to_local(value).shape != to_local(param).shape:
        return f"its {key} is of shape {tuple(value.shape)}"
    if key in CORRECTIONS:
        return None if value.dtype == CORRECTIONS[key][0] else f"its {key} is of {value.dtype}"
    if not (value.is_floating_point() or value.is_complex()) or value.is_complex() != param.is_complex():
        return f"its {key} is of {value.dtype}"
    if key in NOT_NEGATIVE and not value.is_meta:
        part = to_local(value)
        if ((torch.view_as_real(part.resolve_conj()) if part.is_complex() else part) < 0).any():
            return f"its {key}, an average of squares, is negative in places"
    return None


def _restore_state(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Put the tensors of a state dict into the optimizer again, in the dtypes that the state has here.

    torch casts loaded state to the parameter's dtype, which for s_t in float16 means 0. A correction of weights
    that have no more than 16 bits stays with such weights alone.

    Args:
        optimizer: An optimizer that has just loaded ``saved``.
        saved: The state dict, as it was before torch cast it.
    """
    for loaded, group in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        for id_, param in zip(loaded["params"], group["params"], strict=True):
            for key, value in saved["state"].get(id_, {}).items():
                if key == "step":
                    optimizer.state[param][key] = make_step(value, param, group)
                elif key in CORRECTIONS:
                    del optimizer.state[param][key]
                    if param.dtype in MISSING_BITS:
                        optimizer.state[param][key] = value.to(param.device)
                elif key in OF_PARAM_SHAPE:
                    resolved = value.resolve_conj().resolve_neg()
                    optimizer.state[param][key] = convert_average(
                        resolved, param, group["state_bits"], key, state_dtype(param)
                    )
