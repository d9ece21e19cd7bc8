"""CONTRIBUTING's map, its paths and its commands hold for the tree as it is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_adabelief"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!question|---)(.+?) \| (.+?) \| (.*?) ?\|$", CONTRIBUTING, re.MULTILINE)


def locate(path):
    """Return the file that a path of CONTRIBUTING means: in the package, or else in the repository."""
    return PACKAGE / path if (PACKAGE / path).exists() else ROOT / path.removeprefix("/")


def names_in(path):
    """Return the names that a Python file defines or uses; of another file, the keys of its lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"^[# ]*(\w+):", text, re.MULTILINE))
    found = set()
    for node in ast.walk(ast.parse(text)):
        for kind, attribute in (
            ((ast.FunctionDef, ast.ClassDef), "name"),
            (ast.arg, "arg"),
            (ast.Attribute, "attr"),
            (ast.Name, "id"),
        ):
            if isinstance(node, kind):
                found.add(getattr(node, attribute))
    return found


def test_the_map_answers_twenty_questions_and_more():
    assert len(ROWS) >= 20 and len({question for question, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("question", "files", "name"), [pytest.param(*row, id=row[0]) for row in ROWS])
def test_an_answer_of_the_map_is_there(question, files, name):
    paths = [locate(path) for path in re.findall(r"`([^`]+)`", files)]
    assert paths and all(path.is_file() for path in paths)
    if name:
        assert name.strip("`") in names_in(paths[0])


def test_every_path_in_the_text_exists():
    mentioned = set(re.findall(r"`(/?[\w./-]+/[\w.-]+\.\w+)`", CONTRIBUTING)) | set(
        re.findall(r"`(\w+\.\w+)`", CONTRIBUTING)
    )
    assert len(mentioned) > 20
    anywhere = {"README.md", "__init__.py"}  # of each folder
    assert [path for path in sorted(mentioned - anywhere) if not locate(path).exists()] == []


def test_imports_run_as_the_text_says():
    (arrows,) = re.findall(r"`(cli -> .*)`", CONTRIBUTING)
    layers = [part.split(", ") for part in arrows.split(" -> ")][:-1]
    for depth, layer in enumerate(layers):
        forbidden = {name for above in layers[:depth] for name in above}
        for folder in layer:
            for path in (PACKAGE / folder).rglob("*.py"):
                text = path.read_text(encoding="utf-8")
                imported = set(re.findall(r"(?:from|import) lightning_adabelief\.(\w+)", text))
                assert not forbidden & imported or "DeprecationWarning" in text, (
                    path
                )  # an old name leads to its new place


def test_the_commands_name_tests_and_scripts_that_exist():
    blocks = "".join(re.findall(r"```bash\n(.*?)```", CONTRIBUTING, re.DOTALL))
    words = {word for word in blocks.split() if "/" in word and not word.startswith(".venv")}
    assert words == {"tests/optim/test_parity.py", ".ci/run"}
    assert all((ROOT / word).is_file() for word in words)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -e ".[dev]"' in readme and 'pip install -e ".[dev]"' in blocks
