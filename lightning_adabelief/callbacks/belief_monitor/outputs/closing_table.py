"""The table that a run closes with: its most notable layers."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

COLUMNS = {
    "s_t": ("s_t", "{:.2e}"),
    "effective_step_size": ("effective\nstep size", "{:.2e}"),
    "step_gain_over_adam": ("gain over\nAdam", "{:.2f}x"),
    "eps_share": ("eps\nshare", "{:.1%}"),
}
TITLE = "The most notable layers, when last measured"


def layers_table(layers: Mapping[str, Mapping[str, float]]) -> Table:
    """Make the table.

    Args:
        layers: From a layer's name to its statistics, as :meth:`BeliefMonitor.notable_layers` gives it.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", overflow="fold")
    for header, _ in COLUMNS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name, values in layers.items():
        cells = [(shape, values[statistic]) for statistic, (_, shape) in COLUMNS.items()]
        table.add_row(name, *("-" if isnan(value) else shape.format(value) for shape, value in cells))
    return table


def print_layers(layers: Mapping[str, Mapping[str, float]]) -> None:
    """Print the table by itself; nothing where there are no layers."""
    if layers:
        panel = Panel(layers_table(layers), title=TITLE, title_align="left", padding=(1, 2), expand=False)
        Console().print(panel)
