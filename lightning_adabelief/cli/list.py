"""``adabelief list``: the recipes, with the paper's scores and those measured here."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    commands.add_parser("list", help="list the recipes").set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
    """Print a table of the recipes."""
    from itertools import groupby

    from rich.console import Console
    from rich.table import Table

    from lightning_adabelief.recipes.catalog import recipes

    console = Console()
    gap = 2 if console.width >= 100 else 1
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    table.add_column("recipe", no_wrap=True, style="cyan")
    table.add_column("data")
    table.add_column("parameters", no_wrap=True, justify="right")
    table.add_column("the paper's")
    table.add_column("measured here")
    by_task = sorted(recipes().values(), key=lambda recipe: recipe.facts["task"])
    for task, of_task in groupby(by_task, key=lambda recipe: recipe.facts["task"]):
        table.add_row()
        table.add_row(f"[bold default]{task}[/]")
        for recipe in of_task:
            table.add_row(recipe.name, *(recipe.facts[fact] for fact in ("data", "parameters", "paper", "measured")))
    console.print(table)
    console.print("\nRun one:  [bold]adabelief fit --config RECIPE[/]\nCopy one: [bold]adabelief copy RECIPE[/]")
