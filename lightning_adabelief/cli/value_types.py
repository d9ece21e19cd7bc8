"""Values of a config against the types that a class's source gives its arguments."""

from __future__ import annotations

import ast
from typing import Any

from lightning_adabelief.suggest import join_names

PHRASES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "text",
    "None": "",
}
UNIONS = ("Union", "Optional")
LISTS = ("list", "List", "Sequence", "Iterable")
TUPLES = ("tuple", "Tuple")
CLASSES = (
    "Callback",
    "LRSchedulerCallable",
    "LightningDataModule",
    "LightningModule",
    "Logger",
    "Module",
    "OptimizerCallable",
    "Profiler",
    "Strategy",
)
"""Types that are certainly classes, so that a value is a path, or ``class_path`` and ``init_args``."""
NOT_IN_CONFIGS = ("Tensor", "timedelta")
"""Types of which no value can be written in a config."""


def fits(value: Any, annotation: ast.expr | None) -> bool:
    """Return False if a value certainly is not of a type.

    Args:
        value: A value as YAML gives it; text that reads as a number counts as one, as on a command line.
        annotation: The syntax tree of the type.
    """
    if value is None or annotation is None:
        return True
    alternatives = _list_alternatives(annotation)
    return any(_fits_one(value, alternative) for alternative in alternatives)


def say_type(annotation: ast.expr) -> str:
    """Return what a value of a type is, in words, such as ``"a number"``; that it may be null too is left out."""
    alternatives = [a for a in _list_alternatives(annotation) if _name(a) not in NOT_IN_CONFIGS]
    names = [_name(alternative) for alternative in alternatives]
    if "float" in names and "int" in names:
        alternatives = [a for a in alternatives if _name(a) != "int"]
    phrases = dict.fromkeys(_say_one(alternative) for alternative in alternatives)
    return " or ".join(phrase for phrase in phrases if phrase)


def list_class_names(annotation: ast.expr | None) -> list[str]:
    """List the classes that a value may name; none if the value may be text that names no class."""
    names: list[str] = []
    for alternative in _list_alternatives(annotation) if annotation else ():
        name = _name(alternative)
        if name in LISTS and isinstance(alternative, ast.Subscript):
            names += list_class_names(alternative.slice)
        elif name in ("str", "Any", "Path", "Literal") or name.startswith("_"):
            return []
        elif name not in PHRASES and name not in (*NOT_IN_CONFIGS, *LISTS, *TUPLES, "dict", "Dict", "Mapping"):
            names.append(name)
    return names


def _list_alternatives(annotation: ast.expr) -> list[ast.expr]:
    """Take a union apart; a type in quotes is parsed."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _list_alternatives(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return [*_list_alternatives(annotation.left), *_list_alternatives(annotation.right)]
    if isinstance(annotation, ast.Subscript) and _name(annotation) in UNIONS:
        inner = annotation.slice
        members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        none: list[ast.expr] = [ast.Constant(None)] if _name(annotation) == "Optional" else []
        return [alternative for member in [*members, *none] for alternative in _list_alternatives(member)]
    return [annotation]


def _name(annotation: ast.expr) -> str:
    """Return a type's name without its module and parameters."""
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return ast.unparse(annotation).rpartition(".")[2]


def _fits_one(value: Any, annotation: ast.expr) -> bool:
    name, parameters = _name(annotation), getattr(annotation, "slice", None)
    if name == "Literal":
        choices = _list_choices(annotation)
        return value in choices or None in choices
    if name in LISTS or name in TUPLES:
        if isinstance(value, str):
            return value.startswith("[")  # a list of a command line
        if not isinstance(value, list):
            return name == "Iterable" and isinstance(value, dict)
        if parameters is None or name == "Iterable":
            return True
        members = parameters.elts if isinstance(parameters, ast.Tuple) else [parameters]
        if name in LISTS or (len(members) == 2 and ast.unparse(members[1]) == "..."):
            return all(fits(item, members[0]) for item in value)
        return len(value) == len(members) and all(map(fits, value, members))
    if name in ("int", "float"):
        return _is_number(value, whole=name == "int")
    if name == "bool":
        return isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no", "on", "off")
    if name in ("dict", "Dict"):
        return isinstance(value, dict) or str(value).startswith("{")
    if name in CLASSES:
        return isinstance(value, str | dict)
    return name not in (*NOT_IN_CONFIGS, "None")


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float) or (isinstance(value, str) and not whole):
        try:
            return not whole and float(value) is not None
        except ValueError:
            return value in (".nan", ".inf", "-.inf")  # as YAML writes them
    return isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").replace("_", "").isdigit())


def _list_choices(annotation: ast.expr) -> list[Any]:
    """List a ``Literal``'s values; None stands for one that is not written out."""
    choices = annotation.slice if isinstance(annotation, ast.Subscript) else annotation
    members = choices.elts if isinstance(choices, ast.Tuple) else [choices]
    return [member.value if isinstance(member, ast.Constant) else None for member in members]


def _say_one(annotation: ast.expr) -> str:
    name, parameters = _name(annotation), getattr(annotation, "slice", None)
    if name == "Literal":
        return join_names(_list_choices(annotation), "or")
    if name in TUPLES and isinstance(parameters, ast.Tuple):
        each = say_type(parameters.elts[0])
        return f"a list of {len(parameters.elts)}, each {each}" if each else ""
    if name in (*LISTS, *TUPLES):
        return "a list"
    if name in ("dict", "Dict"):
        return "keys with values"
    return "a class, by its path" if name in CLASSES else PHRASES.get(name, f"a {name}")
