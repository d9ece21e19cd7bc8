"""The catalog of recipes: their configs, and what the first lines of each say about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lightning_adabelief.suggest import suggest

FACTS = ("task", "data", "parameters", "paper", "measured")
"""Facts that the comment at the head of each config must give."""


class UnknownRecipeError(ValueError):
    """The error of a name that is no recipe's; its message suggests others."""


@dataclass(frozen=True)
class Recipe:
    """A shipped config.

    Attributes:
        name: Its name in commands: the file's name without ``.yaml``.
        path: The file.
        title: One line that describes it.
        facts: From each of :data:`FACTS` to its line.
    """

    name: str
    path: Path
    title: str
    facts: dict[str, str]


def list_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(path.stem for path in _list_paths())


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name, sorted."""
    return {path.stem: _read(path) for path in sorted(_list_paths(), key=lambda path: path.stem)}


def find(name: str) -> Recipe:
    """Find a recipe.

    Raises:
        UnknownRecipeError: If there is no recipe of this name; it suggests similar names.
    """
    shipped = recipes()
    if name not in shipped:
        raise UnknownRecipeError(f"Unknown recipe: {name!r}. {_suggest_recipe(name)}")
    return shipped[name]


def find_config(name_or_path: str) -> Path:
    """Find a config: a file if there is one, otherwise the recipe of this name.

    Raises:
        UnknownRecipeError: If it is neither; it suggests similar names.
    """
    if not name_or_path:
        raise UnknownRecipeError("There is no config of an empty name. 'adabelief list' lists all recipes")
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise UnknownRecipeError(f"Unknown config: {name_or_path!r} is a folder. Give a file in it, or a recipe's name")
    if name_or_path not in list_names():
        raise UnknownRecipeError(
            f"Unknown config: {name_or_path!r} is neither a file nor a recipe. {_suggest_recipe(name_or_path)}"
        )
    return recipes()[name_or_path].path


def _suggest_recipe(name: str) -> str:
    return f"{suggest(name, list_names())} 'adabelief list' lists all recipes"


def _list_paths() -> list[Path]:
    return list(Path(__file__).parent.glob("*/*.yaml"))


def _read(path: Path) -> Recipe:
    """Read the comment at the head of a config."""
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head, f"{path} lacks its comment"
    title = re.match(rf"# {re.escape(path.stem)}: (.*)", head[0])
    # Two spaces more than the title's line, a word, a colon: "#   data:       1,797 digits".
    facts = dict(re.findall(r"^#   (\w+): +(.*)$", head[0], re.MULTILINE))
    assert title and facts.keys() == set(FACTS), f"{path} does not give {FACTS}"
    return Recipe(path.stem, path, title[1], facts)
