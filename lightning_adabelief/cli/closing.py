"""The end of ``adabelief fit``: the scores, and where to look next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.lightning_tree import TensorBoardLogger, Trainer


def print_closing(trainer: Trainer, scores: Mapping[str, float]) -> None:
    """Print the scores of a run and where to look next; BeliefMonitor has printed its own table.

    Args:
        trainer: The Trainer that ran.
        scores: The test's metrics; none if there was no test.
    """
    console = Console()
    if scores:
        title = ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in trainer.optimizers))
        console.print(Panel(_make_table(scores), title=title, title_align="left", padding=(1, 2), expand=False))
    for name, location in _find_locations(trainer).items():
        console.print(f"[dim]{name}[/] {escape(location)}", soft_wrap=True, highlight=False)  # one line, to be copied


def best_checkpoint(trainer: Trainer) -> str:
    """Return the path of the best checkpoint, or of the latest if none is monitored; empty if there is none."""
    return getattr(trainer.checkpoint_callback, "best_model_path", "")


def make_command(words: Sequence[str], checkpoint: Path, command: str = "fit") -> str:
    """Make the command line that goes on from a checkpoint.

    Args:
        words: The command and its options as typed.
        checkpoint: The checkpoint, which takes the place of one that is named.
        command: The new command.

    Returns:
        A line for a shell.
    """
    kept = [command]
    remaining = iter(words[1:])
    for word in remaining:
        if word == "--ckpt_path":
            next(remaining, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return shlex.join(["adabelief", *kept, f"--ckpt_path={_shorten_path(str(checkpoint))}"])


def _make_table(scores: Mapping[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in scores.items():
        table.add_row(name, Text(f"{value:.4f}", style="bold green"))
    return table


def _find_locations(trainer: Trainer) -> dict[str, str]:
    """Return where the logs and the checkpoint are, and the command that shows them."""
    locations = {}
    checkpoint = best_checkpoint(trainer)
    logs = folder_of(trainer.loggers)  # not trainer.log_dir, which waits for ranks that may have ended
    if logs:
        locations["logs           "] = _shorten_path(str(logs))
    if checkpoint:
        best = getattr(trainer.checkpoint_callback, "monitor", None)
        locations["best checkpoint" if best else "last checkpoint"] = _shorten_path(checkpoint)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            locations["see it all     "] = f"tensorboard --logdir {shlex.quote(_shorten_path(logger.root_dir))}"
    return locations


def _shorten_path(path: str) -> str:
    """Return a path as one would type it here: relative if it is below this folder."""
    absolute = Path(path).resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
