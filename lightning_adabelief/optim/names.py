"""The names of parameters, as the author of the model knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

WRAPPER_PREFIXES = re.compile(r"\b(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
PARAMETRIZED_NAME = re.compile(r"\bparametrizations\.(\w+)\.original")  # spectral and weight norm


@lru_cache(maxsize=1 << 16)
def plain_name(name: str) -> str:
    """Return a parameter's name without the parts that FSDP, ``torch.compile`` and parametrizations add.

    Example:
        >>> plain_name("encoder._orig_mod.0.parametrizations.weight.original")
        'encoder.0.weight'
    """
    return PARAMETRIZED_NAME.sub(r"\1", WRAPPER_PREFIXES.sub("", name))


def parameter_names(module: nn.Module) -> dict[Tensor, tuple[str, ...]]:
    """Return all plain names of each of a module's parameters: a tied weight has several.

    Args:
        module: Any module.

    Returns:
        From each parameter, in the module's order, to its names. The first is the one that
        ``module.named_parameters()`` gives it.

    Example:
        >>> import torch
        >>> network = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(8, 4), "head": torch.nn.Linear(4, 8)})
        >>> network["head"].weight = network["embedding"].weight
        >>> list(parameter_names(network).values())
        [('embedding.weight', 'head.weight'), ('head.bias',)]
    """
    names: dict[Tensor, tuple[str, ...]] = {}
    for name, param in module.named_parameters(remove_duplicate=False):
        known = names.get(param, ())
        if plain_name(name) not in known:
            names[param] = (*known, plain_name(name))
    return names


def shorten_names(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def name_late_parameters(
    param_group: dict[str, Any], param_groups: list[dict[str, Any]], late_names: Mapping[Tensor, str]
) -> None:
    """Name the parameters of a new group in place, where they have no names and the optimizer's others do.

    Args:
        param_group: The group to be added.
        param_groups: The optimizer's groups so far.
        late_names: Names by parameter; one that is not among them is called ``group2.0`` and so on.
    """
    params = param_group.get("params")
    if not (param_groups and "param_names" in param_groups[0]) or isinstance(params, set | None):
        return
    params = [params] if isinstance(params, Tensor) else list(params)
    if params and not any(isinstance(param, tuple) for param in params):
        prefix = f"group{len(param_groups) + 1}"
        params = [(late_names.get(param, f"{prefix}.{i}"), param) for i, param in enumerate(params)]
    param_group["params"] = params
