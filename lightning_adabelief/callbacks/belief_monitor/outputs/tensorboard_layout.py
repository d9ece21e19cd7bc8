"""TensorBoard's custom-scalars page: one chart a statistic, with its layers together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from lightning_adabelief.lightning_tree import is_a

CHARTS = {
    "belief": ["s_t", "effective_step_size", "step_gain_over_adam"],
    "steps": ["update_to_weight", "update_norm", "grad_norm, unclipped_grad_norm"],
    "optimizer": ["eps_share", "rectification, warmup", "skipped_steps, nonfinite_steps"],
}
"""From a category to its charts, each of one statistic or more."""


def write_layout(loggers: Iterable[Any], statistics: Collection[str]) -> None:
    """Write the layout to each TensorBoardLogger.

    TensorBoard shows the layout that was last written to a run, and of several runs the layouts
    together: a layout of one's own takes this one's place if it is written after it.

    Args:
        loggers: The Trainer's loggers.
        statistics: The statistics that are logged.
    """
    for logger in loggers:
        if is_a(logger, "TensorBoardLogger"):
            logger.experiment.add_custom_scalars(layout(statistics))


def layout(statistics: Collection[str]) -> dict[str, Any]:
    """The layout as ``SummaryWriter.add_custom_scalars`` takes it.

    A chart's tags are a regular expression, so that it shows the layers that become notable later,
    under a logger's prefix too.
    """
    categories: dict[str, Any] = {}
    for category, charts in CHARTS.items():
        for chart in charts:
            names = [name for name in chart.split(", ") if name in statistics]
            if names:
                tags = [rf"(.*-)?belief/{name}/" for name in names]
                categories.setdefault(category, {})[", ".join(names)] = ["Multiline", tags]
    return categories
