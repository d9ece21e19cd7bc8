"""TensorBoard's custom-scalars page: one chart a statistic, with its layers together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from lightning_adabelief.beliefs.statistic import STATISTICS
from lightning_adabelief.lightning_tree import is_a

CATEGORIES = ("belief", "steps", "optimizer")
"""The page's sections, in their order."""


def write_layout(loggers: Iterable[Any], statistics: Collection[str]) -> None:
    """Write the layout to each TensorBoardLogger.

    TensorBoard shows the layout that was last written to a run, and of several runs the layouts
    together. So a layout of the user's own replaces this one if it is written later.

    Args:
        loggers: The Trainer's loggers.
        statistics: The statistics that are logged.
    """
    for logger in loggers:
        if is_a(logger, "TensorBoardLogger"):
            logger.experiment.add_custom_scalars(layout(statistics))


def layout(statistics: Collection[str]) -> dict[str, Any]:
    """Return the layout as ``SummaryWriter.add_custom_scalars`` takes it.

    A chart's tags are regular expressions, so that it shows layers that become notable later, and
    tags with a logger's prefix.
    """
    categories: dict[str, dict[str, list[str]]] = {category: {} for category in CATEGORIES}
    for row in STATISTICS:
        if row.name in statistics:
            category, chart = row.chart
            categories[category].setdefault(chart, []).append(row.name)
    return {
        category: {
            ", ".join(names): ["Multiline", [rf"(.*-)?belief/{name}/" for name in names]] for names in charts.values()
        }
        for category, charts in categories.items()
        if charts
    }
