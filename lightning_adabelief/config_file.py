"""The one reader of configs: YAML text, read strictly."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_NODES = 10_000
"""Number of keys and values that a config may have, those repeated by YAML aliases counted each time."""


TAGS_OF_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int")
"""The kinds of key that are taken: a name, YAML's ``<<``, or a whole number, as in a dict of a class's own."""

MAX_BYTES = 1_000_000
"""Length of a config, which takes a second to read."""


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
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"The config {path} is of {path.stat().st_size} bytes; it may have {MAX_BYTES}. {compare}")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"The config {path} is not YAML, because it is not text: {error}. {compare}") from None
    except UsageError as error:
        raise UsageError(f"The config {path} is too long: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # a ValueError of a number or date that is none
        raise UsageError(f"The config {path} is not YAML: {_explain(error)}. {compare}") from None
    if not isinstance(content, dict):
        raise UsageError(f"The config {path} holds {content!r:.80}, not keys such as model and trainer. {compare}")
    if not isinstance(content.get("trainer", {}), dict | str):
        raise UsageError(f"In the config {path}, trainer is {content['trainer']!r:.80}, not keys. {compare}")
    return content


def parse_yaml(text: str) -> Any:
    """Parse YAML; a key that is given twice is an error.

    Raises:
        yaml.YAMLError: If the text is not YAML, or a mapping has a key twice.
        RecursionError: If it is nested more deeply than Python can follow.
        UsageError: If it has too many keys and values, or one that holds itself.
        ValueError: If it has a number or a date that is none.
    """
    content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (it is a SafeLoader)
    if _has_too_many_nodes(content):
        raise UsageError(
            f"it has more than {MAX_NODES} keys and values, or one that holds itself. Repeat less by aliases (*name)"
        )
    return content


def parse_value(text: str) -> Any:
    """Parse an option's value as YAML; text that is not YAML is itself.

    Raises:
        UsageError: If it has too many keys and values, or one that holds itself.
    """
    try:
        return parse_yaml(text)
    except UsageError as error:
        raise UsageError(f"{text:.40} is too long: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


def read_number(value: Any) -> float | None:
    """Return a number, also from text as YAML writes it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return {".nan": math.nan, ".inf": math.inf, "-.inf": -math.inf}.get(str(value))
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def convert_number(value: Any) -> Any:
    """Return the number that a text means, for YAML takes 1e-3, which has no point, for text; else the value itself."""
    number = read_number(value) if isinstance(value, str) else None
    return value if number is None else number


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys, of which YAML's own keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in TAGS_OF_KEYS:
                text = getattr(key, "value", key.tag)
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {text!r:.40} is not a name; in quotes it is one", key.start_mark
                )
            if counts[key.value] > 1 and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given {counts[key.value]} times", key.start_mark
                )
        return super().construct_mapping(node, deep)


def _explain(error: Exception) -> str:
    """Return what is wrong with a YAML text, and in which line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error)
    if text.startswith("but "):  # the second half of a sentence
        text = f"{getattr(error, 'context', '')}, {text}"
    text = re.sub(r"\s+", " ", text)
    return f"in line {mark.line + 1}, column {mark.column + 1}, {text}" if mark else text


def _has_too_many_nodes(content: Any) -> bool:
    """Return True for a config that would keep its reader busy: many aliases of aliases, or one of itself."""
    count, remaining = 0, [content]
    while remaining and count <= MAX_NODES:
        node = remaining.pop()
        count += 1
        if isinstance(node, dict | list):
            remaining.extend(node.values() if isinstance(node, dict) else node)
    return count > MAX_NODES
