"""The package imports nothing that pyproject.toml does not declare."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import lightning_adabelief

PACKAGE = Path(lightning_adabelief.__file__).parent

WITHOUT_IMPORT = {"pytorch-lightning", "tensorboard"}
"""Lightning's TensorBoardLogger imports the second; lightning_tree.py the first, by a name that it works out."""

ONLY_WHERE_INSTALLED = {"huggingface_hub", "safetensors", "timm", "triton", "wandb"}
"""timm and wandb are imported for a user's network and logger that come from them; safetensors for a user's file, and
huggingface_hub, which timm needs, for where it keeps its downloads; Triton comes with torch for CUDA."""


def imported_modules(tree):
    """The top-level names of the modules that run-time code imports: not what is under TYPE_CHECKING."""
    names = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def canonical(requirement):
    """A requirement's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def read_project():
    tomllib = pytest.importorskip("tomllib", reason="new in Python 3.11")
    return tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(*extras):
    project = read_project()
    requirements = [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    return {canonical(requirement) for requirement in requirements}


def imported_distributions():
    files = PACKAGE.rglob("*.py")
    modules = set().union(*(imported_modules(ast.parse(file.read_text(encoding="utf-8"))) for file in files))
    modules -= set(sys.stdlib_module_names) | {PACKAGE.name} | ONLY_WHERE_INSTALLED
    providers = packages_distributions()
    return {module: {canonical(name) for name in providers[module]} for module in modules}


def test_what_is_imported_is_declared():
    known = declared("fid", "compare", "onnx")
    undeclared = {module: names for module, names in imported_distributions().items() if not names & known}
    assert not undeclared


def test_what_is_declared_is_imported():
    assert declared() - WITHOUT_IMPORT <= set().union(*imported_distributions().values())


def test_what_one_task_alone_imports_is_an_extra():
    for module, folder in (
        ("jinja2", "comparison"),
        ("scipy", "comparison"),
        ("optuna", "comparison"),
        ("onnx", "cli"),
    ):
        importing = {file for file in PACKAGE.rglob("*.py") if module in imported_modules(ast.parse(file.read_text()))}
        assert importing and all(file.is_relative_to(PACKAGE / folder) for file in importing)
        assert module not in declared()


def test_every_extra_that_a_message_or_a_document_names_is_there():
    extras = read_project()["optional-dependencies"]
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.yaml"), *PACKAGE.parent.rglob("*.md")]
    named = set(re.findall(r"lightning-adabelief\[([\w,]+)\]", "".join(file.read_text() for file in files)))
    assert named == {"compare", "detection", "fid", "onnx", "timm"} <= extras.keys()


def test_imports_are_found_in_functions_and_in_every_form():
    code = """
import a.b as c, d
from e.f import g
from . import here
if TYPE_CHECKING:
    import typed
else:
    import untyped
def function():
    try:
        import inner
    except ImportError:
        import fallback
"""
    assert imported_modules(ast.parse(code)) == {"a", "d", "e", "untyped", "inner", "fallback"}
