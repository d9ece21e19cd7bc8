"""The modules of a user's own that a command names: imported first, they decide which Lightning is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

NOT_THE_USERS = ("lightning_adabelief.", "torch.", "torchvision.", "torchmetrics.")
CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
NAMED = re.compile(r"""class_path['"]?\s*:\s*['"]?([\w.]+)""")
"""A class path in YAML or JSON."""
CONFIGS = (".yaml", ".yml", ".json")
FILES = (*CONFIGS, ".ckpt", ".pt", ".pth", ".safetensors", ".csv", ".txt", ".toml", ".py", ".zip", ".gz", ".tar")
"""What a file's name ends with, where a class path has a class."""


def import_users_modules(words: Iterable[str]) -> None:
    """Import the modules of the classes that the command line and its configs name.

    A module that can't be imported is left for the parser to report.

    Args:
        words: The command line.
    """
    for path in _class_paths(words):
        if not path.startswith(NOT_THE_USERS):
            with suppress(Exception):
                import_module(path.rpartition(".")[0])


def _class_paths(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        value = word.partition("=")[2] if word.startswith("-") else word
        if value.lower().endswith(CONFIGS):
            with suppress(OSError, UnicodeDecodeError):  # the parser says it
                yield from NAMED.findall(Path(value).read_text(encoding="utf-8"))
        elif CLASS_PATH.fullmatch(value) and not value.lower().endswith(FILES):
            yield value
        else:  # YAML or JSON in place
            yield from NAMED.findall(value)
