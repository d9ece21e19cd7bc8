"""The names of parameters, as the author of the model knows them."""

from __future__ import annotations

import re

WRAPPER_PREFIXES = re.compile(r"\b(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
PARAMETRIZED_NAME = re.compile(r"\bparametrizations\.(\w+)\.original")  # spectral and weight norm


def plain_name(name: str) -> str:
    """Return a parameter's name without the parts that FSDP, ``torch.compile`` and parametrizations add.

    Example:
        >>> plain_name("encoder._orig_mod.0.parametrizations.weight.original")
        'encoder.0.weight'
    """
    return PARAMETRIZED_NAME.sub(r"\1", WRAPPER_PREFIXES.sub("", name))
