"""What ``adabelief fit`` closes with: the scores, what the optimizer believed, and where to look next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lightning_adabelief.callbacks import BeliefMonitor
from lightning_adabelief.callbacks.belief_monitor.outputs.closing_table import TITLE, layers_table
from lightning_adabelief.lightning_tree import TensorBoardLogger, Trainer


def print_closing(trainer: Trainer, scores: Mapping[str, float], monitors: Iterable[BeliefMonitor] = ()) -> None:
    """Print the closing table of a run.

    Args:
        trainer: The Trainer that ran.
        scores: The test's metrics; none if there was no test.
        monitors: Those whose notable layers to show.
    """
    parts: list[Table | Text] = []
    if scores:
        parts.append(_scores(scores))
    layers = {name: values for monitor in monitors for name, values in monitor.notable_layers().items()}
    if layers:
        parts += [Text(f"\n{TITLE}", style="bold"), layers_table(layers)]
    console = Console()
    if parts:
        console.print(Panel(Group(*parts), title=_title(trainer), title_align="left", padding=(1, 2)))
    for name, place in _places(trainer).items():
        console.print(f"[dim]{name}[/] {escape(place)}", soft_wrap=True, highlight=False)  # to be copied whole


def best_checkpoint(trainer: Trainer) -> str:
    """The path of the best checkpoint, or the latest where none is better; empty where there is none."""
    return getattr(trainer.checkpoint_callback, "best_model_path", "")


def _title(trainer: Trainer) -> str:
    return ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in trainer.optimizers))


def _scores(scores: Mapping[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in scores.items():
        table.add_row(name, Text(f"{value:.4f}", style="bold green"))
    return table


def _places(trainer: Trainer) -> dict[str, str]:
    """Where the run left what, and how to look at it."""
    places = {}
    checkpoint = best_checkpoint(trainer)
    if trainer.loggers and trainer.log_dir:
        places["logs           "] = _path(trainer.log_dir)
    if checkpoint:
        best = getattr(trainer.checkpoint_callback, "monitor", None)
        places["best checkpoint" if best else "last checkpoint"] = _path(checkpoint)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            places["see it all     "] = f"tensorboard --logdir {shlex.quote(_path(logger.root_dir))}"
    return places


def _path(path: str) -> str:
    """The path as one would type it here."""
    absolute = Path(path).resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
