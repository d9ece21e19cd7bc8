"""The numbers: to every logger, to the Trainer's ``callback_metrics``, and to the progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lightning_adabelief.callbacks.belief_monitor.measurement import Measurement
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import log_numbers
from lightning_adabelief.lightning_tree import rank_zero_warn


class Scalars:
    """Writes a measurement's numbers as ``belief/<statistic>/<layer>``.

    Args:
        trainer: The Trainer that has the loggers.
        statistics: The names of the statistics to write.
        prog_bar: Those whose summaries go to the progress bar.
    """

    def __init__(self, trainer: Any, statistics: Sequence[str], prog_bar: Sequence[str]) -> None:
        self._trainer = trainer
        self._statistics = frozenset(statistics)
        self._prog_bar = frozenset(prog_bar)
        self._failed: set[int] = set()

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Write the measurements of one step, an optimizer each, in one call to each logger."""
        numbers = {}
        for measurement in measurements:
            for statistic, name, value in self._select_numbers(measurement):
                numbers[f"belief/{statistic}/{name}"] = value
        if not numbers:
            return
        for logger in self._trainer.loggers:
            # a param group's name has a separator of its own: AdaBelief/decayed
            separated = {tag.replace("/", logger.group_separator): value for tag, value in numbers.items()}
            self._log(logger, separated, measurements[0].step)
        values = torch.tensor(list(numbers.values()))
        self._trainer.callback_metrics.update(zip(numbers, values.unbind(), strict=True))
        self._show_progress(measurements)

    def _log(self, logger: Any, numbers: dict[str, float], step: int) -> None:
        """Log, or warn once for each logger that it failed: training does not end because of a log."""
        try:
            log_numbers(logger, numbers, step)
        except Exception as error:
            if id(logger) not in self._failed:
                self._failed.add(id(logger))
                rank_zero_warn(f"BeliefMonitor could not log to {type(logger).__name__}, and goes on: {error}")

    def _select_numbers(self, measurement: Measurement) -> Iterator[tuple[str, str, float]]:
        """Yield the statistic, the layer, optimizer or group, and the value of all that is to be logged."""
        named = [(measurement.summary_name, measurement.summary)]
        named += [(layer, measurement.layers[layer]) for layer in measurement.shown]
        named += list(measurement.groups.items())
        for name, values in named:
            for statistic, value in values.items():
                if statistic in self._statistics:
                    yield statistic, name, float(value)

    def _show_progress(self, measurements: Sequence[Measurement]) -> None:
        """Put the summaries and groups that were asked for on the progress bar."""
        for position, measurement in enumerate(measurements):
            summaries = [(measurement.summary_name, measurement.summary), *measurement.groups.items()]
            for name, values in summaries:
                for statistic in self._prog_bar & self._statistics & values.keys():
                    # the first optimizer's needs no name beside it, unless it is one of several param groups
                    is_plain = position == 0 and name in (measurement.summary_name, measurement.optimizer)
                    label = statistic if is_plain else f"{statistic}/{name}"
                    self._trainer.lightning_module.log(label, float(values[statistic]), prog_bar=True, logger=False)
