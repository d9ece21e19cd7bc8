"""Histograms over weights, to TensorBoard and W&B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import weight_beliefs
from lightning_adabelief.beliefs.layers import Layer
from lightning_adabelief.beliefs.reading import Readable
from lightning_adabelief.beliefs.statistic import LAYER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.measurement import Measurement
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import log_histograms


class Histograms:
    """Writes histograms as ``belief_histograms/log10_<statistic>/<layer>``.

    Args:
        trainer: The Trainer that has the loggers.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Write the measurements of one step."""
        for measurement in measurements:
            tags = {
                f"belief_histograms/log10_{statistic}/{layer}": values
                for statistic, layers in measurement.histograms.items()
                for layer, values in layers.items()
            }
            for logger in self._trainer.loggers:
                log_histograms(logger, tags, measurement.step)


def take_logarithms(
    layers: dict[str, list[Layer]], statistics: Sequence[str], readable: Readable
) -> dict[str, dict[str, Tensor]]:
    """Return the decimal logarithms of each statistic that has a value for each weight.

    Args:
        layers: From a layer's name to its parameters, with state and group. Where they are sharded, every
            rank must call.
        statistics: The names of the statistics that are logged.
        readable: How much can be read of the layers' optimizer.

    Returns:
        From a statistic's name and a layer's to its finite logarithms, flat; layers without any are left out.
    """
    rows = [row for row in LAYER_STATISTICS if row.of_weights and row.name in statistics]
    rows = [row for row in rows if Readable.GRADIENT < row.needs <= readable]
    found: dict[str, dict[str, Tensor]] = {row.name: {} for row in rows}
    if not rows:
        return found
    for layer, members in layers.items():
        weights = [weight_beliefs(*member) for member in members]
        for row in rows:
            assert row.of_weights is not None
            logarithms = torch.cat([_finite_log10(row.of_weights(each)) for each in weights])
            if len(logarithms) > 0:
                found[row.name][layer] = logarithms
    return found


def _finite_log10(values: Tensor) -> Tensor:
    """Return the decimal logarithms, flat, without those of 0 and of infinity."""
    logarithms = values.detach().float().log10().flatten()
    return logarithms[logarithms.isfinite()]
