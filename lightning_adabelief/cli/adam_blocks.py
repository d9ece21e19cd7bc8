"""Find the Adams of a config, and put AdaBelief in their place in its text, line by line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import yaml

from lightning_adabelief.config_file import UsageError
from lightning_adabelief.optim.like import convert_options

ADAMS: dict[str, type[torch.optim.Optimizer]] = {
    name: kind
    for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RAdam)
    for name in (kind.__name__, f"torch.optim.{kind.__name__}", f"{kind.__module__}.{kind.__name__}")
}
"""The optimizers that are converted, by the names that a config can give them."""

CLASS_PATH = "lightning_adabelief.AdaBelief"


class Edit(NamedTuple):
    """A stretch of the text and its replacement; an insertion where the stretch is empty."""

    start: int
    end: int
    text: str


def replace_adams(text: str, match_noise: bool = False) -> str:
    """Put AdaBelief in the place of each Adam, AdamW and RAdam of a config.

    Only the lines about these optimizers change. Options by which AdaBelief differs from them by default
    are spelled out: eps, the kind of weight decay, and whether it rectifies.

    Args:
        text: A Lightning CLI's config, valid YAML.
        match_noise: See :meth:`lightning_adabelief.AdaBelief.like`.

    Returns:
        The new text; the same text where there is no Adam.

    Raises:
        UsageError: If an option of an Adam is not a plain number where one is needed.
    """
    edits = {edit for node in _find_adams(yaml.compose(text)) for edit in _edit_adam(text, node, match_noise)}
    for edit in sorted(edits, reverse=True):  # from the end, so that earlier positions stay right
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _find_adams(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Iterate over the Adams, each once however often an alias repeats it.

    They are mappings whose class_path is an Adam; and, under a key such as ``optimizer``, the name of an Adam alone.
    """
    remaining, seen = [root], set()
    while remaining:
        node = remaining.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            class_path = _get_values(node).get("class_path")
            if isinstance(class_path, yaml.ScalarNode) and class_path.value in ADAMS:
                yield node
            yield from (value for key, value in node.value if _is_bare_adam(key, value))
            remaining.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            remaining.extend(node.value)


def _is_bare_adam(key: yaml.Node, value: yaml.Node) -> bool:
    """True for ``optimizer: torch.optim.Adam``, which stands for a class_path without init_args."""
    is_optimizer = isinstance(key, yaml.ScalarNode) and "optimizer" in key.value
    return is_optimizer and isinstance(value, yaml.ScalarNode) and value.value in ADAMS


def _edit_adam(text: str, node: Any, match_noise: bool) -> Iterator[Edit]:
    """Make the edits for one Adam: a mapping of class_path and perhaps init_args, or a name alone."""
    if isinstance(node, yaml.ScalarNode):
        options = _convert_given(ADAMS[node.value], {}, match_noise)
        joined = ", ".join(f"{name}: {value}" for name, value in options.items())
        new = f"{{class_path: {CLASS_PATH}, init_args: {{{joined}}}}}"
        yield Edit(node.start_mark.index, node.end_mark.index, new)
        return
    values = _get_values(node)
    class_path, init_args = values["class_path"], values.get("init_args")
    pairs = init_args.value if isinstance(init_args, yaml.MappingNode) else []
    keys = {key.value: key for key, _ in pairs}
    given = {key.value: value for key, value in pairs}
    if "<<" in given:
        raise UsageError(f"The init_args of {class_path.value} merge others (<<). Write their options out")
    converted = _convert_given(ADAMS[class_path.value], given, match_noise)

    yield Edit(class_path.start_mark.index, class_path.end_mark.index, CLASS_PATH)
    for name, value in given.items():
        if name == "decoupled_weight_decay":  # the key is renamed, its value stays
            yield Edit(keys[name].start_mark.index, keys[name].end_mark.index, "weight_decouple")
        elif name in converted:
            yield Edit(value.start_mark.index, value.end_mark.index, converted[name])
    known = given.keys() | ({"weight_decouple"} if "decoupled_weight_decay" in given else set())
    missing = {name: value for name, value in converted.items() if name not in known}
    if given:
        yield _insert_options(text, init_args, missing)
    elif node.flow_style:
        joined = ", ".join(f"{name}: {value}" for name, value in missing.items())
        if init_args is None:
            yield Edit(class_path.end_mark.index, class_path.end_mark.index, f", init_args: {{{joined}}}")
        else:
            yield Edit(init_args.start_mark.index, init_args.end_mark.index, f" {{{joined}}}")
    else:
        indent = "\n" + " " * node.value[0][0].start_mark.column  # the node itself begins at its anchor, if it has one
        lines = "".join(f"{indent}  {name}: {value}" for name, value in missing.items())
        if init_args is None:
            at = _end_of_line(text, class_path.end_mark.index)
            yield Edit(at, at, f"{indent}init_args:{lines}")
        else:  # empty, or {}
            yield Edit(init_args.start_mark.index, init_args.end_mark.index, lines)


def _insert_options(text: str, init_args: Any, options: dict[str, str]) -> Edit:
    """Insert options after the last one, which a comment may follow on its line."""
    last = _get_last_leaf(init_args.value[-1][1])
    if init_args.flow_style:
        at = last.end_mark.index
        return Edit(at, at, "".join(f", {name}: {value}" for name, value in options.items()))
    at = _end_of_line(text, last.end_mark.index)
    indent = "\n" + " " * init_args.value[0][0].start_mark.column
    return Edit(at, at, "".join(f"{indent}{name}: {value}" for name, value in options.items()))


def _convert_given(kind: type[torch.optim.Optimizer], given: dict[str, yaml.Node], match_noise: bool) -> dict[str, str]:
    """Return AdaBelief's options that an Adam's lack, or have in another value, as YAML."""
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    options: dict[str, Any] = {name: defaults[name] for name in ("lr", "betas", "eps", "weight_decay")}
    for name in options.keys() & given.keys():
        options[name] = _read_numbers(kind.__name__, name, given[name])
    decoupled = kind is torch.optim.AdamW
    if "decoupled_weight_decay" in given:
        decoupled = bool(yaml.safe_load(str(getattr(given["decoupled_weight_decay"], "value", ""))))
    converted = convert_options(
        options, decoupled_weight_decay=decoupled, rectify=kind is torch.optim.RAdam, match_noise=match_noise
    )
    wanted = {"eps": _format(converted["eps"])}
    if match_noise:
        wanted["lr"] = _format(converted["lr"])
    if converted["weight_decay"] != (options["weight_decay"] if "weight_decay" in given else 0):
        wanted["weight_decay"] = _format(converted["weight_decay"])
    wanted |= {name: _format(converted[name]) for name in ("weight_decouple", "rectify")}
    if converted["residual"] != "updated":
        wanted["residual"] = converted["residual"]
    return wanted


def _read_numbers(kind: str, name: str, node: yaml.Node) -> Any:
    """Read a number, or the two of betas; YAML itself would read 1e-3 as a string."""
    try:
        if isinstance(node, yaml.SequenceNode):
            return tuple(float(item.value) for item in node.value)
        return float(node.value)
    except (TypeError, ValueError):
        raise UsageError(
            f"The {name} of {kind}, {node.value!r:.80}, is not a number, and AdaBelief's options depend on it. Write "
            "it as a number"
        ) from None


def _format(value: Any) -> str:
    """Format a value as every YAML reader reads it: 1.0e-19, for YAML 1.1 takes 1e-19 for a string."""
    if isinstance(value, bool):
        return str(value).lower()
    mantissa, e, exponent = f"{value:.6g}".partition("e")
    return mantissa + (".0" if "." not in mantissa else "") + e + exponent


def _get_values(node: yaml.MappingNode) -> dict[str, Any]:
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _get_last_leaf(node: yaml.Node) -> yaml.Node:
    """Return the last value inside a block; a block's own end is where the next one begins, comments later."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node


def _end_of_line(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end
