"""``adabelief show NAME``: print a recipe's config."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("show", help="print a recipe's config")
    parser.add_argument("name", help="a recipe; 'adabelief list' lists them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the config, in colour on a terminal and unchanged elsewhere.

    Raises:
        UnknownRecipeError: If there is no such recipe.
    """
    from lightning_adabelief.recipes.catalog import find

    text = find(arguments.name).path.read_text(encoding="utf-8")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        sys.stdout.write(text)
