"""``adabelief list``: the recipes, what the paper reached, and what was measured here."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser's."""
    commands.add_parser("list", help="list the recipes").set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
    """Print a table of the recipes."""
    from rich.console import Console
    from rich.table import Table

    from lightning_adabelief.recipes.catalog import FACTS, recipes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True, style="cyan")
    for fact in FACTS:
        table.add_column(fact, no_wrap=fact == "parameters", justify="right" if fact == "parameters" else "left")
    for recipe in recipes().values():
        table.add_row(recipe.name, *(recipe.facts[fact] for fact in FACTS))
    console = Console()
    console.print(table)
    console.print("\nRun one:  [bold]adabelief fit --config RECIPE[/]\nCopy one: [bold]adabelief copy RECIPE[/]")
