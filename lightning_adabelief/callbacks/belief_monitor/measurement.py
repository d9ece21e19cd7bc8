"""The statistics of one optimizer at one step: what every output is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

Values = Mapping[str, float]
"""From a statistic's name to its value."""


@dataclass(frozen=True)
class Measurement:
    """The statistics of one optimizer at one step.

    Attributes:
        optimizer: The optimizer's name.
        step: The step that loggers are given.
        layers: From a layer's name to its statistics, in the network's order.
        shown: The layers that are logged one by one, the most notable first.
        included: The layers that the record has.
        summary_name: The name of the summary of all layers.
        summary: The statistics of all layers together; empty where this monitor does not log them.
        groups: From the name of the optimizer, or of a param group of it, to its statistics.
        histograms: From a statistic's name to the logarithms of its values in each layer shown.
    """

    optimizer: str
    step: int
    layers: Mapping[str, Values] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    included: tuple[str, ...] = ()
    summary_name: str = ""
    summary: Values = field(default_factory=dict)
    groups: Mapping[str, Values] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """True if layers were measured, not steps counted alone."""
        return bool(self.layers)

    def with_counts(self, counts: Values) -> Measurement:
        """Return the measurement with counts of the optimizer's steps added to its statistics."""
        own = {**self.groups.get(self.optimizer, {}), **counts}
        return replace(self, groups={**self.groups, self.optimizer: own})
