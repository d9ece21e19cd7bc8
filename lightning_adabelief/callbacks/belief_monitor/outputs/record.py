"""The record of a run that BeliefMonitor keeps beside the logs: ``belief.png`` and ``belief.csv``."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adabelief.callbacks.belief_monitor.measurement import Measurement
from lightning_adabelief.callbacks.belief_monitor.outputs.heat_map import PANELS, draw, render, save_png
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES, LayerHistory
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of, log_image, takes_images
from lightning_adabelief.files import replace_file

MAX_TIME_FRACTION = 0.005
ASSUMED_COST = 0.15  # seconds, of a drawing that was not yet timed: so the first comes after 30 s


class BeliefRecord:
    """Keeps the history of each optimizer's layers, and writes it as a heat map and as a table.

    Saving takes about a second, so it is done at the end, and before that at the ends of epochs as long as
    it takes at most 1/200 of the time of the training.

    Args:
        statistics: The names of the statistics to write.
        suffix: The ending of the names of the files and of the image.
    """

    def __init__(self, statistics: Sequence[str], suffix: str = "") -> None:
        self.suffix = suffix
        self.statistics = [statistic for statistic in NAMES if statistic in statistics]
        self.histories: dict[str, LayerHistory] = {}
        self._written_at = time.monotonic()
        self._cost = ASSUMED_COST
        self._step = 0
        self._is_new = False  # True if there is something that was not yet saved

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Add the measurements of one step; :meth:`save` puts them on the disk."""
        for measurement in measurements:
            layers = {name: measurement.layers[name] for name in measurement.included}
            if layers:
                self.histories.setdefault(measurement.optimizer, LayerHistory()).add(measurement.step, layers)
                self._step, self._is_new = measurement.step, True

    def save_if_cheap(self, loggers: Sequence[Any]) -> None:
        """Save, if enough time has passed since the last saving for what it took."""
        if time.monotonic() - self._written_at > self._cost / MAX_TIME_FRACTION:
            self.save(loggers)

    def save(self, loggers: Sequence[Any]) -> None:
        """Save, if there is anything new, the files beside the logs, and the image to the loggers.

        Args:
            loggers: The Trainer's loggers; the files go to the folder of the first that has one.
        """
        folder = folder_of(loggers)
        if not self._is_new or not self.statistics or not (folder or any(map(takes_images, loggers))):
            return
        begin = time.monotonic()
        if folder:
            self._write_csv(folder / f"belief{self.suffix}.csv")
        panels = [name for name in PANELS if name in self.statistics and self._is_measured(name)]
        if panels:
            pixels = render(draw(self.histories, panels))
            if folder:
                save_png(pixels, folder / f"belief{self.suffix}.png")
            for logger in loggers:
                log_image(logger, f"belief/heat_map{self.suffix}", pixels, self._step)
        self._is_new = False
        self._written_at = time.monotonic()
        self._cost = self._written_at - begin

    def state_dict(self) -> dict[str, Any]:
        """Return the histories, so that a resumed run goes on with them."""
        return {name: history.state_dict() for name, history in self.histories.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        for name, history in state.items():
            self.histories[name] = LayerHistory()
            self.histories[name].load_state_dict(history)
            self._is_new = True  # its run may have ended before it was saved

    def _is_measured(self, statistic: str) -> bool:
        column = NAMES.index(statistic)
        return any(not np.isnan(history.values[..., column]).all() for history in self.histories.values())

    def _write_csv(self, path: Path) -> None:
        """Write all cells."""
        with replace_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "optimizer", "layer", *self.statistics])
            for optimizer, history in self.histories.items():
                for step, layer, cell in history.rows():
                    writer.writerow([step, optimizer, layer, *(f"{cell[name]:.6g}" for name in self.statistics)])
