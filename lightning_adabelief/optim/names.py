"""The names of parameters, as the author of the model knows them."""

from __future__ import annotations

import re

from torch import Tensor, nn

WRAPPER_PREFIXES = re.compile(r"\b(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
PARAMETRIZED_NAME = re.compile(r"\bparametrizations\.(\w+)\.original")  # spectral and weight norm


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
