"""``adabelief copy NAME [DEST]``: copy a recipe's config in order to change it."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("copy", help="copy a recipe's config, to change it")
    parser.add_argument("name", help="a recipe; 'adabelief list' lists them")
    parser.add_argument("dest", nargs="?", default=".", metavar="DEST", help="a file or a folder (default: here)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Copy the config; never overwrite a file.

    Raises:
        FileExistsError: If the destination exists.
        FileNotFoundError: If the folder of the destination does not exist.
        UnknownRecipeError: If there is no such recipe.
    """
    from lightning_adabelief.files import replace_file
    from lightning_adabelief.recipes.catalog import find

    recipe = find(arguments.name)
    dest = Path(arguments.dest)
    if dest.is_dir():
        dest = dest / recipe.path.name
    if dest.exists():
        raise FileExistsError(f"{dest} exists, and is left as it is. Give another name, or remove it first")
    if not dest.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {dest.parent} to copy {recipe.name} into. Make it first")
    with replace_file(dest) as part:
        shutil.copyfile(recipe.path, part)
    print(f"Copied {recipe.name} to {dest}. Run it with: adabelief fit --config {dest}")
