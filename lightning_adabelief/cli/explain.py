"""The parser's report on a config, made short: which key, what is wrong, what is near."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lightning_adabelief.lightning_tree import Trainer
from lightning_adabelief.recipes.catalog import recipes

NOISE = re.compile(r"$|Does not validate|Subtypes:|Errors:|Parser key [^:]+:$|Problem with given class_path|Type .*:$")
TOP_LEVEL_KEYS = ("model", "data", "trainer", "seed_everything", "ckpt_path", "optimizer", "lr_scheduler")


def explain(report: str) -> str:
    """Shorten a report of jsonargparse, which tells every alternative it tried.

    Args:
        report: The error's text.

    Returns:
        The key, the innermost problem and, for an unknown name, near ones; a text that is no such
        report, as it is.
    """
    unknown = re.search(r"(does not accept \w+( key)?|unrecognized arguments:) '?-*([^'=\s]+)", report, re.IGNORECASE)
    if unknown:
        return f"Unknown option: {unknown[3]!r}. {_near_option(unknown[3])}"
    missing = re.findall(r"\b\w+\.(data|model)\b", report) if re.search("(are|is) required", report) else []
    if missing:
        return f"There is no {' and no '.join(missing)}. Give a config that has both, for example --config digits-cnn"
    branch = _first_branch(report)
    lines = [line.strip(" -") for line in branch if not NOISE.match(line.strip(" -"))]
    if not lines:
        return report
    text = "\n".join(branch)
    problem = re.sub(r"\.? Got value: Namespace\(.*", "", lines[-1])
    problem = re.sub(r"^Type .* expects a function or a callable class: ", "", problem)
    option = re.search(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)", problem)
    attribute = re.search(r"module '([^']+)' has no attribute '([^']+)'", problem)
    classes = re.findall(r"class_path[ =]'([^']+)'", text)
    if option and classes:
        near = _close(option[1], inspect.signature(_load(classes[-1])).parameters)
        problem = f"{classes[-1]} has no option {option[1]!r}. {_did_you_mean(near)}"
    elif attribute:
        problem = f"{problem}. {_did_you_mean(_close(attribute[2], dir(import_module(attribute[1]))))}"
    missing_class = re.match(r"Expected a (?:config )?path but (\S+)", problem)
    if missing_class:
        problem = f"There is no class {missing_class[1]}. Give its full path, as package.module.Class"
    value = re.search(r"Given value: (.{1,80})$", report, re.MULTILINE)
    if problem.startswith("Expected a") and "Got value" not in problem and value:
        problem = f"{problem}. Got value: {value[1]}"
    key = ".".join(re.findall(r"Parser key \"([^\"]+)\"", text))
    return f"In the config, {key}: {problem}" if key else problem


def _first_branch(report: str) -> list[str]:
    """The lines of the report without all but the first of each list of alternatives."""
    lines: list[str] = []
    bullets: list[int] = []
    for line in report.splitlines():
        indent = len(line) - len(line.lstrip())
        if re.match(r"Given value|(- )?Expected a <class 'NoneType'>", line.strip()):
            continue
        while bullets and indent < bullets[-1]:
            bullets.pop()
        if bullets and indent == bullets[-1]:
            break  # the next alternative
        if line.lstrip().startswith("- "):
            bullets.append(indent)
        lines.append(line)
    return lines


def _near_option(key: str) -> str:
    """Suggest a key of the config's own or of the Trainer, or for a recipe the way to give it."""
    if key in recipes():
        return f"Did you mean --config {key}?"
    head, _, rest = key.partition(".")
    if head == "trainer":
        name = rest.partition(".")[0]
        return _did_you_mean([f"trainer.{near}" for near in _close(name, inspect.signature(Trainer).parameters)])
    return _did_you_mean(_close(head, TOP_LEVEL_KEYS) or list(TOP_LEVEL_KEYS[:3]))


def _load(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _close(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(names), n=2)


def _did_you_mean(names: list[str]) -> str:
    return f"Did you mean {' or '.join(names)}?" if names else "Nothing there has a name like it"
