"""The recipes' configs: where they are, and what their first lines say of them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

FACTS = ("task", "data", "parameters", "paper", "measured")
"""What the comment at the head of each config must tell."""


@dataclass(frozen=True)
class Recipe:
    """A shipped config.

    Attributes:
        name: What the command calls it: the file's name without ``.yaml``.
        path: The file.
        title: One line on what it is.
        facts: From each of :data:`FACTS` to its line.
    """

    name: str
    path: Path
    title: str
    facts: dict[str, str]


def recipes() -> dict[str, Recipe]:
    """All shipped recipes by name, sorted."""
    paths = sorted(Path(__file__).parent.glob("*/*.yaml"), key=lambda path: path.stem)
    return {path.stem: _read(path) for path in paths}


def find(name: str) -> Recipe:
    """Find a recipe.

    Raises:
        ValueError: If there is none of this name; it lists near names.
    """
    shipped = recipes()
    if name not in shipped:
        raise ValueError(f"Unknown recipe: {name!r}. {_near(name, shipped)}")
    return shipped[name]


def find_config(name_or_path: str) -> Path:
    """Find a config: an existing file wins, then a recipe's name.

    Raises:
        ValueError: If it is neither; it lists near names.
    """
    path, shipped = Path(name_or_path), recipes()
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"Unknown config: {name_or_path!r} is a folder. Give a file in it, or a recipe's name")
    if name_or_path not in shipped:
        raise ValueError(f"Unknown config: {name_or_path!r} is no file and no recipe. {_near(name_or_path, shipped)}")
    return shipped[name_or_path].path


def _near(name: str, shipped: dict[str, Recipe]) -> str:
    near = difflib.get_close_matches(name, shipped, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"The recipes are: {', '.join(shipped)}"


def _read(path: Path) -> Recipe:
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head, f"{path} lacks its comment"
    title = re.match(rf"# {re.escape(path.stem)}: (.*)", head[0])
    facts = dict(re.findall(r"^#   (\w+): +(.*)$", head[0], re.MULTILINE))
    assert title and facts.keys() == set(FACTS), f"{path} does not tell {FACTS}"
    return Recipe(path.stem, path, title[1], facts)
