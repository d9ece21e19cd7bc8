"""The table printed at the end of training: the most notable layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lightning_adabelief.beliefs.statistic import STATISTICS
from lightning_adabelief.callbacks.belief_monitor.measurement import Measurement, Values

TITLE = "The most notable layers, when last measured"


class ClosingTable:
    """Keeps the latest measurement of each optimizer, for the table."""

    def __init__(self) -> None:
        self._latest: dict[str, Measurement] = {}

    @property
    def layers(self) -> dict[str, Values]:
        """From a layer's name to its statistics when last measured: the layers logged, the most notable first."""
        return {name: latest.layers[name] for latest in self._latest.values() for name in latest.shown}

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Keep the measurements of one step."""
        self._latest |= {measurement.optimizer: measurement for measurement in measurements if measurement.is_complete}

    def print(self) -> None:
        """Print the table in a panel of its own; nothing before the first measurement."""
        if self.layers:
            panel = Panel(layers_table(self.layers), title=TITLE, title_align="left", padding=(1, 2), expand=False)
            Console().print(panel)


def layers_table(layers: Mapping[str, Values]) -> Table:
    """Return the table.

    Args:
        layers: From a layer's name to its statistics, as :meth:`BeliefMonitor.notable_layers` returns them.
    """
    measured = {name for values in layers.values() for name, value in values.items() if not isnan(value)}
    if "effective_step_size" in measured:  # both would leave too little of 80 columns for the layers' names
        measured.discard("update_to_weight")
    shown = [row for row in STATISTICS if row.column and row.name in measured]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", overflow="fold")
    for row in shown:
        table.add_column(row.column or "", justify="right", no_wrap=True)
    for name, values in layers.items():
        cells = [(row.format, values.get(row.name, nan)) for row in shown]
        table.add_row(name, *("-" if isnan(value) else form.format(value) for form, value in cells))
    return table
