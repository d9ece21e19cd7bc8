"""The record of a run that BeliefMonitor keeps beside the logs: ``belief.png`` and ``belief.csv``."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adabelief.beliefs.layers import LAYER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.outputs.heat_map import PANELS, draw, render, save_png
from lightning_adabelief.callbacks.belief_monitor.outputs.history import LayerHistory
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of, log_image, takes_images

SHARE_OF_TIME = 0.005
FIRST_GUESS = 0.15  # seconds, for a drawing that was not yet timed: the first comes after 30 s


class BeliefRecord:
    """Keeps the history of each optimizer's layers, and writes it as a heat map and as a table.

    Writing takes about a second, so it is done at the ends of epochs, as far as it takes at most
    1/200 of the time of the training, and at the end.

    Args:
        statistics: The statistics to write; the heat map has those of PANELS among them.
        suffix: What the names of the files and of the image end in.
    """

    def __init__(self, statistics: Sequence[str], suffix: str = "") -> None:
        self.suffix = suffix
        self.statistics = [statistic for statistic in LAYER_STATISTICS if statistic in statistics]
        self.histories: dict[str, LayerHistory] = {}
        self._written_at = time.monotonic()
        self._cost = FIRST_GUESS
        self._step = 0
        self._is_new = False  # whether there is something that was not yet written

    def add(self, optimizer: str, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        """Add a measurement of an optimizer's layers, as :meth:`LayerHistory.add` takes it."""
        if not layers:
            return
        self.histories.setdefault(optimizer, LayerHistory()).add(step, layers)
        self._step, self._is_new = step, True

    def write_if_cheap(self, loggers: Sequence[Any]) -> None:
        """Write, if the last writing was long ago against the time that it took."""
        if time.monotonic() - self._written_at > self._cost / SHARE_OF_TIME:
            self.write(loggers)

    def write(self, loggers: Sequence[Any]) -> None:
        """Write, if there is anything new, the files beside the logs and the image to the loggers.

        Args:
            loggers: The Trainer's loggers; the files go to the folder of the first that has one.
        """
        folder = folder_of(loggers)
        if not self._is_new or not self.statistics or not (folder or any(map(takes_images, loggers))):
            return
        begin = time.monotonic()
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self._write_csv(folder / f"belief{self.suffix}.csv")
        panels = [name for name in PANELS if name in self.statistics and self._has(name)]
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
        """The histories, so that a resumed run goes on with them."""
        return {name: history.state_dict() for name, history in self.histories.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        for name, history in state.items():
            self.histories[name] = LayerHistory()
            self.histories[name].load_state_dict(history)

    def _has(self, statistic: str) -> bool:
        place = LAYER_STATISTICS.index(statistic)
        return any(not np.isnan(history.values[..., place]).all() for history in self.histories.values())

    def _write_csv(self, path: Path) -> None:
        """Write all cells, in the place of what was there."""
        part = path.with_name(path.name + ".part")
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "optimizer", "layer", *self.statistics])
            for optimizer, history in self.histories.items():
                for step, layer, cell in history.rows():
                    writer.writerow([step, optimizer, layer, *(f"{cell[name]:.6g}" for name in self.statistics)])
        os.replace(part, path)
