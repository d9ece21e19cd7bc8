"""Objects that a user names by import path."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightning_adabelief.suggest import suggest


class InvalidOptionError(ValueError):
    """The error of an option that is not possible, found before anything has run."""


def import_object(path: str, kind: str) -> Any:
    """Import what an import path names.

    Args:
        path: Module and name, such as ``"torch.optim.SGD"``.
        kind: What it should be, for the error: ``"function"``.

    Raises:
        InvalidOptionError: If the module can't be imported, or has no such name.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise InvalidOptionError(
            f"The {kind} {path!r} can't be imported: {type(error).__name__}: {error}. Give module and name, of a "
            "module that is installed or in this folder"
        ) from error
    if not hasattr(module, name):
        known = [other for other in dir(module) if not other.startswith("_")]
        raise InvalidOptionError(f"The module {module_name} has no {kind} {name!r}. {suggest(name, known)}")
    return getattr(module, name)
