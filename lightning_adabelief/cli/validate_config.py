"""``adabelief validate-config FILE_OR_NAME [OPTIONS]``: tell whether a config is good, without running it."""

from __future__ import annotations

import argparse
from typing import Any

PURPOSE = "tell in a moment whether a config is good"


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("validate-config", help=f"{PURPOSE}; --full also builds all that it names")
    parser.add_argument("config", help="a file or a recipe's name")
    parser.add_argument("--full", action="store_true", help="import torch and build model, data and Trainer as well")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="...", help="options, as for 'adabelief fit'")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check a config; what is wrong with it is raised as an error.

    Raises:
        UsageError: If the config is wrong.
    """
    from lightning_adabelief.cli.check import check
    from lightning_adabelief.settings import read_settings

    is_full = arguments.full or "--full" in arguments.overrides
    overrides = [word for word in arguments.overrides if word != "--full"]
    settings = read_settings(["fit", "--config", arguments.config, *overrides])
    unchecked = check(settings)
    if is_full:
        from lightning_adabelief.cli.main import load_lightning

        load_lightning(settings).build(settings)
        print(f"{arguments.config} is good: everything that it names was built")
        return
    print(f"{arguments.config} is good, as far as can be told without importing torch: keys, classes, options, types")
    if unchecked:
        print(f"Not all is checked of: {', '.join(dict.fromkeys(unchecked))}")
    print("--full builds model, data and Trainer too, without training")
