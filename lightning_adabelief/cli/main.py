"""The command ``adabelief``: recipes listed, shown, copied, and run by the Lightning CLI."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence

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
        The exit status: 0, or 1 after an error that the user can mend. Where the command itself is
        wrong, argparse exits with 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0] in LIGHTNING_COMMANDS:
            _lightning_run(words)(words)
        else:
            arguments = _parser().parse_args(words)
            arguments.run(arguments)
    except Exception as error:
        if not _is_mendable(error) or os.environ.get("ADABELIEF_TRACEBACK"):
            raise
        _print_error(error)
        return 1
    finally:
        gc.unfreeze()  # for the libraries that look for leaks at exit
    return 0


def _is_mendable(error: Exception) -> bool:
    """Whether an error's message says it all: one about files, or that a checker of arguments raised.

    Any other, such as a ValueError of the user's own module, keeps its traceback.
    """
    if isinstance(error, OSError) or type(error).__name__ == "MisconfigurationException":
        return True
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    checkers = ("lightning", "pytorch_lightning", "jsonargparse", "torch.optim")
    return isinstance(error, (ValueError, RuntimeError)) and raised_in.startswith(checkers)


def _lightning_run(words: list[str]) -> Callable[[list[str]], None]:
    """Import Lightning, and let a config name classes of modules in this folder.

    The garbage collector need not go through the many objects that the import makes for good;
    without it ``fit --help`` answers a good deal sooner.
    """
    sys.path.insert(0, os.getcwd())
    gc.disable()
    try:
        from lightning_adabelief.cli.users_modules import import_users_modules

        import_users_modules(words)
        from lightning_adabelief.cli.lightning import run
    finally:
        gc.freeze()  # nor while the command runs
        gc.enable()
    return run


def _parser() -> argparse.ArgumentParser:
    from lightning_adabelief.cli import copy, list, show

    parser = argparse.ArgumentParser(
        prog="adabelief",
        description="Train with AdaBelief in PyTorch Lightning, and see what it believes.",
        epilog="Begin with: adabelief fit --config digits-cnn. After an error, ADABELIEF_TRACEBACK=1 shows where.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (list, show, copy):
        module.add_parser(commands)
    for name, purpose in LIGHTNING_COMMANDS.items():
        commands.add_parser(name, help=f"{purpose}: --config NAME_OR_PATH and any option of the Lightning CLI")
    return parser


def _print_error(error: Exception) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
