"""The arguments of a class, read from its source.

Importing a class of a config imports torch and Lightning, which takes seconds. Its source is found
and parsed in milliseconds. What the source alone does not tell is left open: a wrong answer would
refuse a config that works.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from lightning_adabelief.suggest import suggest

PACKAGES = ("lightning_adabelief", "pytorch_lightning", "lightning", "torch", "torchvision", "torchmetrics", "timm")
"""Packages that a misspelt class path may have meant."""

KNOWN_DECORATORS = ("_defaults_from_env_vars", "override", "staticmethod")
"""Decorators that leave the arguments as they are written."""


class UnknownClassError(LookupError):
    """The error of a class path that certainly leads nowhere; its message suggests others."""


@dataclass(frozen=True)
class ClassSource:
    """The definition of a class, or of a function that makes an object.

    Attributes:
        module: Name of the module that defines it.
        node: Its syntax tree.
    """

    module: str
    node: ast.ClassDef | ast.FunctionDef

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return self.node.name


@dataclass(frozen=True)
class Arguments:
    """The arguments that a class takes.

    Attributes:
        annotations: From each name to its type's syntax tree, None for an argument without a type.
        are_complete: True if the class takes no others.
    """

    annotations: dict[str, ast.expr | None]
    are_complete: bool


def find_class(class_path: str) -> ClassSource | None:
    """Find the definition of a class without importing it.

    Args:
        class_path: Module and class, such as ``"torch.optim.SGD"``.

    Returns:
        The definition; None where the source does not tell whether there is one.

    Raises:
        UnknownClassError: If there certainly is no such class.
    """
    module, _, name = class_path.rpartition(".")
    parts = module.split(".")
    for i, part in enumerate(parts):
        parent, path = ".".join(parts[:i]), ".".join(parts[: i + 1])
        if _find_spec(path) is not None:
            continue
        if not parent:
            raise UnknownClassError(f"There is no module {part!r}. {_suggest_module(part)}")
        if _is_open(parent) or part in list_names(parent):
            return None  # a class within a class, perhaps, or a module made at run time
        raise UnknownClassError(f"There is no module {path!r}. {suggest(part, list_names(parent))}")
    found = _find_definition(module, name)
    if found is None and not _is_open(module) and name not in list_names(module):
        bound = [other for other, _ in _list_bindings(module) if not other.startswith("_")]
        raise UnknownClassError(f"{module} has no class {name!r}. {suggest(name, bound)}")
    return found


def list_arguments(source: ClassSource) -> Arguments:
    """List the arguments of a class, those of its base where it has no ``__init__`` of its own."""
    node = source.node
    if isinstance(node, ast.FunctionDef):
        return _read_signature(node)
    if node.decorator_list:
        return Arguments({}, are_complete=False)  # a dataclass, for example
    for statement in _statements(node.body):
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _read_signature(statement, skip=1)
    for base in node.bases:
        found = _find_expression(source.module, base)
        return list_arguments(found) if found else Arguments({}, are_complete=False)
    return Arguments({}, are_complete=True)


def list_names(module: str) -> list[str]:
    """List the public names that a module's source defines or imports, and its submodules."""
    names = [name for name, _ in _list_bindings(module)]
    spec = _find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        files = Path(folder).iterdir() if Path(folder).is_dir() else ()
        names += [file.stem for file in files if file.suffix == ".py" or (file / "__init__.py").is_file()]
    return sorted({name for name in names if not name.startswith("_")})


def _suggest_module(name: str) -> str:
    suggestion = suggest(name, PACKAGES)
    return suggestion if suggestion.startswith("Did") else "Install it, or start from the folder that it is in."


def _find_spec(module: str) -> ModuleSpec | None:
    """Find a module without importing the packages that it is in, as ``importlib.util.find_spec`` would."""
    parent, _, _ = module.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(module)
        spec = _find_spec(parent)
        folders = spec.submodule_search_locations if spec else None
        return PathFinder.find_spec(module, folders) if folders is not None else None
    except (ImportError, ValueError):
        return None


def _read_module(module: str) -> list[ast.stmt] | None:
    """Parse a module; None if there is no source to parse."""
    spec = _find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return _parse_file(spec.origin, Path(spec.origin).stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _parse_file(file: str, _modified: int) -> list[ast.stmt]:
    return list(_statements(ast.parse(Path(file).read_text(encoding="utf-8")).body))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, and those under ``if`` and ``try``: ``if TYPE_CHECKING`` tells what is loaded lazily."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from _statements([*statement.body, *handlers, *statement.orelse])
        else:
            yield statement


def _list_bindings(module: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the names that a module binds, each with its statement; ``import *`` is followed."""
    for statement in _read_module(module) or ():
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            yield statement.name, statement
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.asname or alias.name.partition(".")[0], statement
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if alias.name != "*":
                    yield alias.asname or alias.name, statement
                elif (source := _find_origin(module, statement)) not in seen:
                    yield from ((name, statement) for name, _ in _list_bindings(source, seen | {module}))
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from ((target.id, statement) for target in targets if isinstance(target, ast.Name))


def _find_definition(module: str, name: str, depth: int = 0) -> ClassSource | None:
    """Find what a name of a module stands for, through imports."""
    if depth > 10:  # modules that import from one another
        return None
    for bound, statement in _list_bindings(module):
        if bound != name:
            continue
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            return ClassSource(module, statement)
        if isinstance(statement, ast.ImportFrom):
            originals = {alias.asname or alias.name: alias.name for alias in statement.names}
            return _find_definition(_find_origin(module, statement), originals.get(name, name), depth + 1)
        return None
    return None


def _find_origin(module: str, statement: ast.ImportFrom) -> str:
    """Return the module that a statement imports from."""
    if not statement.level:
        return statement.module or ""
    spec = _find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    parts = module.split(".")
    package = parts[: len(parts) - statement.level + is_package]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def _find_expression(module: str, expression: ast.expr) -> ClassSource | None:
    """Find the class that an expression such as ``pl.LightningModule`` names in a module."""
    first, _, rest = ast.unparse(expression).partition(".")
    if not rest:
        return _find_definition(module, first)
    for bound, statement in _list_bindings(module):
        if bound != first:
            continue
        if isinstance(statement, ast.Import):
            imported = next((alias.name for alias in statement.names if alias.asname == first), first)
        elif isinstance(statement, ast.ImportFrom):
            original = next((alias.name for alias in statement.names if (alias.asname or alias.name) == first), first)
            imported = f"{_find_origin(module, statement)}.{original}"
        else:
            return None
        owner, _, name = f"{imported}.{rest}".rpartition(".")
        return _find_definition(owner, name)
    return None


def _is_open(module: str) -> bool:
    """Return True if a module may have names that its source does not show."""
    statements = _read_module(module)
    if statements is None:
        return True
    if module.partition(".")[0] == "lightning_adabelief":  # its lazy names stand under TYPE_CHECKING
        return False
    for statement in statements:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
            return True
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            if _is_open(_find_origin(module, statement)):
                return True
        if isinstance(statement, ast.Expr | ast.For | ast.Assign) and any(
            text in ast.unparse(statement) for text in ("globals()", "setattr(", "exec(", "vars(")
        ):
            return True
    return False


def _read_signature(function: ast.FunctionDef, skip: int = 0) -> Arguments:
    positional = [*function.args.posonlyargs, *function.args.args][skip:]
    arguments = [*positional, *function.args.kwonlyargs]
    decorators = [ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list]
    is_plain = all(decorator in KNOWN_DECORATORS for decorator in decorators)
    return Arguments({a.arg: a.annotation for a in arguments}, is_plain and function.args.kwarg is None)
