"""The one reader of configs: YAML text, read strictly."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_NODES = 10_000
"""Number of keys and values that a config may have, those repeated by YAML aliases counted each time."""


class UsageError(ValueError):
    """An error in the command line or in a config, found before anything has run."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.

    Args:
        path: A file of YAML or JSON.

    Returns:
        Its keys and values.

    Raises:
        OSError: If the file can't be read.
        UsageError: If the file is no YAML, gives a key twice, or holds something other than keys.
    """
    compare = "Compare 'adabelief show digits-cnn'"
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"The config {path} is not YAML, because it is not text: {error}. {compare}") from None
    except yaml.YAMLError as error:
        where = re.sub(r"\s+", " ", str(error))
        raise UsageError(f"The config {path} is not YAML: {where}. {compare}") from None
    if not isinstance(content, dict):
        raise UsageError(f"The config {path} holds {content!r:.80}, not keys such as model and trainer. {compare}")
    if _has_too_many_nodes(content):
        raise UsageError(f"The config {path} has more than {MAX_NODES} keys and values. Repeat less by aliases (*name)")
    if not isinstance(content.get("trainer", {}), dict | str):
        raise UsageError(f"In the config {path}, trainer is {content['trainer']!r:.80}, not keys. {compare}")
    return content


def parse_yaml(text: str) -> Any:
    """Parse YAML; a key that is given twice is an error.

    Raises:
        yaml.YAMLError: If the text is not YAML, or a mapping has a key twice.
    """
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (it is a SafeLoader)


def parse_value(text: str) -> Any:
    """Parse an option's value as YAML; text that is not YAML is itself."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys, of which YAML's own keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1 and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given {keys.count(key.value)} times", key.start_mark
                )
        return super().construct_mapping(node, deep)


def _has_too_many_nodes(content: Any) -> bool:
    """Return True for a config that would keep its reader busy: many aliases of aliases, or one of itself."""
    count, remaining = 0, [content]
    while remaining and count <= MAX_NODES:
        node = remaining.pop()
        count += 1
        if isinstance(node, dict | list):
            remaining.extend(node.values() if isinstance(node, dict) else node)
    return count > MAX_NODES
