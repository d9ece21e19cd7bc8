"""Optimizers and schedulers among a module's hyperparameters, as plain data that a checkpoint can keep.

``save_hyperparameters()`` keeps an ``OptimizerCallable`` as the object it is, which torch's
``weights_only`` load refuses. In a checkpoint it is a class path and options, as in a config.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

INSTANTIATOR_KEY = "_instantiator"
"""The hyperparameter by which Lightning is told what makes a module from its hyperparameters."""


def make_plain(hyper_parameters: dict[str, Any], tree: str) -> None:
    """Replace callables among hyperparameters, in place, by ``{"class_path": ..., "init_args": ...}``.

    Those that :func:`describe_callable` can describe are replaced. The
    instantiator that is named with them is the one of Lightning's own CLI, which ``load_from_checkpoint``
    trusts; it makes the callables again by the type hints of the module's ``__init__``.

    Args:
        hyper_parameters: Those of a checkpoint.
        tree: The class tree of the Trainer, ``"pytorch_lightning"`` or ``"lightning.pytorch"``.
    """
    described = {name: describe_callable(value) for name, value in hyper_parameters.items()}
    plain = {name: description for name, description in described.items() if description is not None}
    if plain:
        hyper_parameters.update(plain)
        hyper_parameters.setdefault(INSTANTIATOR_KEY, f"{tree}.cli.instantiate_module")


def describe_callable(value: Any) -> dict[str, Any] | None:
    """Describe a callable that makes an optimizer or a learning-rate scheduler, as a config does.

    Args:
        value: A class, or a ``functools.partial`` of one with keyword arguments; anything else can't be described.

    Returns:
        Its ``class_path``, and as ``init_args`` all of its options, the defaults among them; None for anything else.
    """
    given: dict[str, Any] = {}
    if isinstance(value, functools.partial) and not value.args:
        value, given = value.func, value.keywords
    if not (isinstance(value, type) and issubclass(value, (Optimizer, LRScheduler))):
        return None
    # With the defaults, for jsonargparse takes what is left out from the default of the module's argument,
    # which may be of another class.
    parameters = list(inspect.signature(value).parameters.values())[1:]
    defaults = {of.name: of.default for of in parameters if of.default is not of.empty}
    options = {name: _as_yaml(option) for name, option in {**defaults, **given}.items()}
    return {"class_path": f"{value.__module__}.{value.__qualname__}", "init_args": options}


def _as_yaml(option: Any) -> Any:
    """Return an option as a config has it: a tuple as a list."""
    return list(option) if isinstance(option, tuple) else option
