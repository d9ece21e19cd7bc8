"""The command ``adabelief``: recipes listed, shown, copied, and run by the Lightning CLI."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from lightning_adabelief.cli.check import check
from lightning_adabelief.cli.checkpoint_config import add_config
from lightning_adabelief.cli.checkpoints import require_checkpoint
from lightning_adabelief.cli.errors import explain_os_error, is_mendable
from lightning_adabelief.cli.signals import StoppedBySignal, handle_signals, is_first_rank
from lightning_adabelief.cli.users_modules import import_users_modules
from lightning_adabelief.cli.version import list_versions
from lightning_adabelief.config_file import UsageError
from lightning_adabelief.recipes.catalog import UnknownRecipeError
from lightning_adabelief.settings import Settings, read_settings
from lightning_adabelief.suggest import suggest

DEBUG = "--debug"

LIGHTNING_COMMANDS = {
    "fit": "train, then test the best checkpoint",
    "validate": "evaluate on the validation data",
    "test": "evaluate on the test data",
    "predict": "predict, and save the predictions beside the logs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The words after ``adabelief``; by default those of the process.

    Returns:
        The exit status: 0 for success; 2 if the command line or a config is wrong, before anything has run;
        1 after any other error that the user can mend; 143 after SIGTERM and 130 after Ctrl-C. argparse exits
        with 2 by itself.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    is_debugged = DEBUG in words or bool(os.environ.get("ADABELIEF_TRACEBACK"))
    words = [word for word in words if word != DEBUG]
    sys.path.insert(0, os.getcwd())  # a config may name classes of modules in this folder
    importlib.invalidate_caches()
    try:
        if words and words[0] in LIGHTNING_COMMANDS:
            with handle_signals():
                _run_lightning(words)
        else:
            arguments = _parser().parse_args(words)
            arguments.run(arguments)
    except StoppedBySignal as stop:
        if is_first_rank():
            print(stop.message, file=sys.stderr)
        return int(stop.code or 0)
    except Exception as error:
        if not is_mendable(error):
            raise
        if is_debugged:
            traceback.print_exc()
        _print_error(error)
        return 2 if isinstance(error, (UsageError, UnknownRecipeError)) else 1
    finally:
        gc.unfreeze()  # for the libraries that look for leaks at exit
    return 0


def _run_lightning(words: list[str]) -> None:
    """Check what can be checked in a moment, and run the Lightning CLI."""
    settings = add_config(read_settings(words))
    if not settings.asks_only:
        check(settings)
        require_checkpoint(settings)
    load_lightning(settings).run(settings)


def load_lightning(settings: Settings) -> ModuleType:
    """Import Lightning, after the user's own modules: theirs decides which of its two packages is used.

    The garbage collector need not go through the many objects that the import makes for good;
    without it ``fit --help`` answers a good deal sooner.

    Returns:
        The module :mod:`lightning_adabelief.cli.lightning`.
    """
    gc.disable()
    try:
        import_users_modules(settings.tree)
        from lightning_adabelief.cli import lightning
    finally:
        gc.freeze()  # nor while the command runs
        gc.enable()
    return lightning


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the command that a misspelt one may have meant."""

    def error(self, message: str) -> NoReturn:
        # "argument COMMAND: invalid choice: 'ft' (choose from 'list', 'show')", in newer Pythons without quotes
        unknown = re.match(r"argument COMMAND: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if unknown:
            commands = re.findall(r"[\w-]+", unknown[2])
            message = f"Unknown command: {unknown[1]!r}. {suggest(unknown[1], commands)}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    from lightning_adabelief.cli import compare, convert, copy, export, landscapes, list, sample, show, validate_config

    parser = _Parser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="adabelief",
        description="Train with AdaBelief in PyTorch Lightning, and see what it believes.",
        epilog="Begin with: adabelief fit --config digits-cnn\n"
        "With --debug, an error shows where it was raised.\n"
        "Exit status: 0; 2 for a wrong command line or config; 143 or 130 after SIGTERM or Ctrl-C;\n"
        "1 for any other failure.",
    )
    parser.add_argument("--version", action="version", version=list_versions(), help="print versions and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (list, show, copy, convert, validate_config, compare, sample, export, landscapes):
        module.add_parser(commands)
    for name, purpose in LIGHTNING_COMMANDS.items():
        commands.add_parser(name, help=f"{purpose}: --config NAME_OR_PATH and any option of the Lightning CLI")
    return parser


def _print_error(error: Exception) -> None:
    from rich.console import Console
    from rich.text import Text

    text = explain_os_error(error) if isinstance(error, OSError) else str(error)
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
