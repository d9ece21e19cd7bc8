"""The command line and its configs, put together as the Lightning CLI will."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_adabelief.config_file import UsageError, parse_value, read_config
from lightning_adabelief.recipes.catalog import find_config, list_names

CONFIG_OPTIONS = ("--config", "-c")
CONFIG_ENDINGS = (".yaml", ".yml", ".json")
"""Endings of files that may stand in the place of a part of a config."""
WITHOUT_VALUE = ("-h", "--help", "--print_config")
"""Options that may stand alone, and after which there is nothing to check: they run nothing."""
WRAPPERS = ("class_path", "init_args", "dict_kwargs")
"""Keys that a class has in a config, and that the command line may leave out."""


@dataclass
class Settings:
    """The settings of a command line and its configs.

    Attributes:
        words: The command line, with files in the place of the recipes' names.
        typed_words: The command line as typed.
        tree: Configs and options merged, later ones over earlier ones.
        configs: The configs by file or recipe's name as typed, in their order.
        typed: Options of the command line as typed, by their keys without ``init_args``.
        asks_only: True if the command line asks for help or for the config, and runs nothing.
        has_trained: True if the run has trained a step, when it has ended.
    """

    words: list[str]
    typed_words: tuple[str, ...] = ()
    tree: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)
    asks_only: bool = False
    has_trained: bool = False

    @property
    def command(self) -> str:
        """The command: fit, validate, test or predict."""
        return self.words[0]

    def say_place(self, key: str) -> str:
        """Say where a key is set: ``"--model.optimizer.lr"``, or ``"In mine.yaml, model.optimizer.lr"``."""
        if self.is_typed(key):
            return f"--{key}"
        holders = [config for config, content in self.configs.items() if _has_key(content, key)]
        return f"In {holders[-1]}, {key}" if holders else key

    def is_typed(self, key: str) -> bool:
        """Return True if the command line sets a key, one that it is in, or one within it that no config has."""
        for typed in self.typed:
            if f"{key}.".startswith(f"{typed}."):
                return True
            if typed.startswith(f"{key}.") and not any(_has_key(content, key) for content in self.configs.values()):
                return True
        return False


def read_settings(words: Sequence[str]) -> Settings:
    """Read a command line and the configs that it names.

    Args:
        words: The command, then its options.

    Raises:
        UsageError: If a word is no option, an option lacks its value, or a config can't be read.
    """
    settings = Settings(list(words), tuple(words))
    remaining = iter(range(1, len(words)))
    for i in remaining:
        option, equals, value = words[i].partition("=")
        if option in WITHOUT_VALUE or option.endswith(".help"):
            settings.asks_only = True
            continue
        if not option.startswith("-") or option.strip("-") == "":
            raise UsageError(_explain_word(words[i]))
        if not equals:
            i = next(remaining, 0)
            if not i or words[i].startswith("--"):
                raise UsageError(f"{option} needs a value: {option} VALUE")
            value = words[i]
        if option in CONFIG_OPTIONS:
            path = find_config(value)
            settings.words[i] = f"{option}={path}" if equals else str(path)
            settings.configs[value] = read_config(path)
            settings.tree = _merge(settings.tree, settings.configs[value])
        else:
            key = option.lstrip("-")
            _set_option(settings, key, value)
            if parse_value(value) is None and _is_in_nested_class(settings.tree, key):
                # jsonargparse 4.53 hands a null on to the class within the class as the text "None".
                as_config = json.dumps(_nest(key.split("."), None))
                settings.words[i] = f"--config={as_config}" if equals else as_config
                if not equals:
                    settings.words[i - 1] = "--config"
    return settings


def strip_wrappers(key: str) -> str:
    """Return a key without ``init_args`` and the like: as one may type it."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _explain_word(word: str) -> str:
    if word in list_names():
        return f"{word!r} is not an option. Did you mean '--config {word}'?"
    return f"{word!r} is not an option. Options begin with --, for example --trainer.max_epochs=3"


def _is_in_nested_class(tree: dict[str, Any], key: str) -> bool:
    """Return True for the option of a class that is itself an option of a class, in no list."""
    node: Any = tree
    depth = 0
    for part in strip_wrappers(key).split(".")[:-1]:
        node = _select_holder(node, part).get(part)
        if not isinstance(node, dict):
            return False
        depth += "class_path" in node
    return depth > 1


def _nest(parts: Sequence[str], value: Any) -> Any:
    """Return the mapping that has a value under the parts of a key."""
    return {parts[0]: _nest(parts[1:], value)} if parts else value


def _set_option(settings: Settings, key: str, text: str) -> None:
    key, is_appended = key.removesuffix("+"), key.endswith("+")
    value = parse_value(text)
    if text.endswith(CONFIG_ENDINGS) and Path(text).is_file():
        read_config(Path(text))  # says what is wrong with it
    plain = strip_wrappers(key)
    if plain:
        settings.typed[plain] = text
    *parents, last = key.split(".")
    node: dict[str, Any] = settings.tree
    for part in parents:
        node = _enter(node, part)
    arguments = _select_holder(node, last)
    arguments[last] = _append(arguments.get(last), value) if is_appended else _merge(arguments.get(last), value)


def _enter(node: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the value of a key as a mapping to set options in, made if need be; of a list, its last item."""
    holder = _select_holder(node, part)
    value = holder.get(part)
    if isinstance(value, list) and value:
        value[-1] = _make_mapping(value[-1])
        return value[-1]
    holder[part] = _make_mapping(value)
    return holder[part]


def _select_holder(node: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the mapping that holds a key: of a class, its ``init_args``."""
    if "class_path" not in node or part in WRAPPERS:
        return node
    node["init_args"] = _make_mapping(node.get("init_args"))
    return node["init_args"]


def _make_mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, and text as the path of a class."""
    if isinstance(value, dict):
        return value
    return {"class_path": value} if isinstance(value, str) else {}


def _merge(old: Any, new: Any) -> Any:
    """Merge a later value over an earlier one; another class does not keep the arguments of the one before."""
    if isinstance(new, str) and isinstance(old, dict) and "class_path" in old:
        new = {"class_path": new}
    if not isinstance(new, dict):
        return copy.deepcopy(new)
    if not isinstance(old, dict) or ("class_path" in new and new["class_path"] != old.get("class_path")):
        old = {}
    merged = dict(old)
    for key, value in new.items():
        name = key.removesuffix("+") if isinstance(key, str) else key
        merged[name] = _merge(old.get(name), value) if name == key else _append(old.get(name), value)
    return merged


def _append(old: Any, new: Any) -> list[Any]:
    """Append to a list, as ``key+`` does."""
    old, new = ([] if value is None else value if isinstance(value, list) else [value] for value in (old, new))
    return [*old, *copy.deepcopy(new)]


def _has_key(node: Any, key: str) -> bool:
    """Return True if a config has a key, with or without ``init_args`` in it."""
    if isinstance(node, list):
        return any(_has_key(item, key) for item in node)
    if not key:
        return True
    if not isinstance(node, dict):
        return False
    first, _, rest = key.partition(".")
    if first in node:
        return _has_key(node[first], rest)
    return any(_has_key(node[wrapper], key) for wrapper in WRAPPERS if isinstance(node.get(wrapper), dict))
