"""The parser's report on a config, shortened to the key, the problem and a suggestion.

:mod:`~lightning_adabelief.cli.check` has caught what source alone tells; the rest comes here.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

from lightning_adabelief.suggest import find_similar, join_names, suggest

# Lines of the report that only lead to the next: headings of lists of alternatives, and keys that hold others.
HEADINGS = re.compile(
    r"$|Does not validate|Subtypes:|Errors:|Parser key [^:]+:$|Problem with given class_path|Type .*:$"
)

SHORT_NAMED = ("torch.optim", "torch.optim.lr_scheduler")
"""Modules whose classes are given by their names alone."""


def explain(report: str) -> str:
    """Shorten a report of jsonargparse, which lists every alternative that it tried.

    Args:
        report: The error's text.

    Returns:
        The key, the innermost problem and, for an unknown name, a suggestion; any other text unchanged.
    """
    branch = _first_branch(report)
    lines = [line.strip(" -") for line in branch if not HEADINGS.match(line.strip(" -"))]
    if not lines:
        return report
    text = "\n".join(branch)
    problem = _explain_problem(lines[-1], re.findall(r"class_path[ =]'([^']+)'", text))
    value = re.search(r"Given value: (.{1,80})$", report, re.MULTILINE)
    if problem.startswith("Expected a") and "Got value" not in problem and value:
        problem = f"{problem}. Got value: {value[1]}"
    key = ".".join(re.findall(r"Parser key \"([^\"]+)\"", text))  # the report gives nested keys one by one
    return f"In the config, {key}: {problem}" if key else problem


def _explain_problem(problem: str, classes: list[str]) -> str:
    """Rewrite the innermost problem of a report, about an argument of the last of some classes."""
    # The parser's own objects mean nothing to its user.
    problem = re.sub(r"\.? Got value: (Namespace|NestedArg)\(.*", "", problem)
    problem = re.sub(r"^Type .* expects a function or a callable class: ", "", problem)
    option = re.search(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)", problem)
    if option and classes:
        parameters = inspect.signature(_load_class(classes[-1])).parameters
        return f"{classes[-1]} has no option {option[1]!r}. {suggest(option[1], parameters)}"
    attribute = re.search(r"module '([^']+)' has no attribute '([^']+)'", problem)
    if attribute:
        return f"{problem}. {suggest(attribute[2], dir(import_module(attribute[1])))}"
    # "Expected a config path but abc either not accessible or invalid": text that is no class is tried as a file.
    no_class = re.match(r"Expected a (?:config )?path but (\S+)", problem)
    if no_class:
        similar = find_similar(no_class[1], [name for module in SHORT_NAMED for name in dir(import_module(module))])
        guess = (
            f"Did you mean {join_names(similar, 'or')}?" if similar else "Give its full path, as package.module.Class"
        )
        return f"There is no class {no_class[1]}. {guess}"
    return problem


def _first_branch(report: str) -> list[str]:
    """Return the lines of the report, and of each list of alternatives in it only the first."""
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


def _load_class(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)
