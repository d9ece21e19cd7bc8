"""Modules of a user's own that a command names: imported first, they decide which Lightning is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from lightning_adabelief.cli.class_source import UnknownClassError, find_class
from lightning_adabelief.config_file import parse_value

NEUTRAL_PACKAGES = ("lightning_adabelief", "torch", "torchvision", "torchmetrics")
"""Packages that do not decide which Lightning is used."""


def import_users_modules(tree: dict[str, Any]) -> None:
    """Import the modules of the user's classes that the settings name.

    A module that can't be imported is left for the parser to report.

    Args:
        tree: Configs and options, merged.
    """
    for class_path in list_class_paths(tree):
        if class_path.partition(".")[0] not in NEUTRAL_PACKAGES:
            with suppress(Exception):
                import_module(class_path.rpartition(".")[0])


def list_class_paths(node: Any, is_class: bool = False) -> Iterator[str]:
    """Yield the class paths in a config: each ``class_path``, and other text that names a class.

    Args:
        node: A config, or a part of it.
        is_class: True for the value of ``class_path``.
    """
    if isinstance(node, str) and node.startswith("{"):
        node = parse_value(node)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from list_class_paths(value, is_class=key == "class_path")
    elif isinstance(node, list):
        for item in node:
            yield from list_class_paths(item)
    elif isinstance(node, str) and "." in node and all(part.isidentifier() for part in node.split(".")):
        if is_class or _is_class(node):
            yield node


def _is_class(text: str) -> bool:
    """Return True for a class path, and False for ``last.ckpt``."""
    try:
        return find_class(text) is not None
    except UnknownClassError:
        return False
