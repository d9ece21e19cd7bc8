"""What ``adabelief fit`` closes with: the scores, what the optimizer believed, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lightning_adabelief.callbacks import BeliefMonitor

COLUMNS = {
    "s_t": "s_t",
    "effective_step_size": "effective\nstep size",
    "step_gain_over_adam": "gain over\nAdam",
    "eps_share": "eps\nshare",
}


def print_closing(trainer: pl.Trainer, scores: Mapping[str, float], checkpoint: str) -> None:
    """Print the closing table of a run.

    Args:
        trainer: The Trainer that ran.
        scores: The test's metrics.
        checkpoint: Path of the checkpoint tested; empty for the last weights.
    """
    parts: list[Table | Text] = []
    if scores:
        parts.append(_scores(scores))
    layers = {
        name: values
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, BeliefMonitor)
        for name, values in callback.notable_layers().items()
    }
    if layers:
        parts.append(_beliefs(layers))
    parts.append(_places(trainer, checkpoint))
    Console().print(Panel(Group(*parts), title=_title(trainer), title_align="left", padding=(1, 2)))


def _title(trainer: pl.Trainer) -> str:
    return ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)


def _scores(scores: Mapping[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in scores.items():
        table.add_row(name, Text(f"{value:.4f}", style="bold green"))
    return table


def _beliefs(layers: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(
        title="\nThe most notable layers, when last logged",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("layer", overflow="fold")
    for header in COLUMNS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name, values in layers.items():
        table.add_row(
            name,
            f"{values['s_t']:.2e}",
            f"{values['effective_step_size']:.2e}",
            f"{values['step_gain_over_adam']:.2f}x",
            f"{100 * values['eps_share']:.1f} %",
        )
    return table


def _places(trainer: pl.Trainer, checkpoint: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("", "")
    log_dir = trainer.log_dir if trainer.loggers else None
    if log_dir:
        table.add_row("logs", _path(log_dir))
    if checkpoint:
        table.add_row("best checkpoint", _path(checkpoint))
    if log_dir:
        table.add_row("see it all", Text(f"tensorboard --logdir {_path(str(Path(log_dir).parent))}", style="bold"))
    return table


def _path(path: str) -> str:
    """The path as one would type it here."""
    absolute = Path(path).resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
