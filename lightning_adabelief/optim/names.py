"""Parameters' names as their author knows them."""

from __future__ import annotations

import re

WRAPPERS = re.compile(r"\b(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
PARAMETRIZED = re.compile(r"\bparametrizations\.(\w+)\.original")  # spectral and weight norm


def plain_name(name: str) -> str:
    """A parameter's name without what FSDP, ``torch.compile`` and parametrizations put into it.

    Example:
        >>> plain_name("encoder._orig_mod.0.parametrizations.weight.original")
        'encoder.0.weight'
    """
    return PARAMETRIZED.sub(r"\1", WRAPPERS.sub("", name))
