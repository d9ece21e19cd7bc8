"""The history of an optimizer's layers over a run, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lightning_adabelief.beliefs.statistic import STATE_STATISTICS

MAX_COLUMNS = 200

NAMES = [row.name for row in STATE_STATISTICS]


class LayerHistory:
    """A table of layers down and steps across, for each of the statistics of layers.

    It holds at most :data:`MAX_COLUMNS` columns: when they are full, neighbours are merged two by
    two, and from then on a column takes twice as many measurements. A cell is the mean of the
    measurements in its column; NaN where there are none.

    Attributes:
        layers: The layers' names, in the order in which they were given.
        steps: The last step of each column.
        values: float32, of shape (layers, columns, statistics).
    """

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.steps: list[int] = []
        self.values = np.empty((0, 0, len(NAMES)), np.float32)
        self._per_column = 1  # measurements that a column takes
        self._in_last = 1  # measurements in the last column

    def add(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        """Add a measurement.

        Args:
            step: Its step, later than those before.
            layers: From a layer's name to its statistics; NaN stands for those it lacks. A new layer
                takes its place after the one that it follows here.
        """
        self._make_rows(layers)
        if self._in_last == self._per_column or not self.steps:
            if len(self.steps) == MAX_COLUMNS:
                self._merge_columns()
            self._make_column()
        else:
            self._in_last += 1
        self.steps[-1] = step
        measured = [row for row, name in enumerate(self.layers) if name in layers]
        cells = [[layers[self.layers[row]].get(statistic, np.nan) for statistic in NAMES] for row in measured]
        self.values[measured, -1] = _mean(self.values[measured, -1], np.array(cells, np.float32), 1 / self._in_last)

    def rows(self) -> Iterator[tuple[int, str, dict[str, float]]]:
        """Yield the cells as step, layer and statistics, step by step, without the empty ones."""
        for column, step in enumerate(self.steps):
            for row, layer in enumerate(self.layers):
                cell = self.values[row, column]
                if not np.isnan(cell).all():
                    yield step, layer, dict(zip(NAMES, cell.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the whole history: 4 bytes a layer, column and statistic."""
        return {
            "layers": list(self.layers),
            "steps": list(self.steps),
            "per_column": self._per_column,
            "in_last": self._in_last,
            "values": {name: torch.tensor(self.values[..., i]) for i, name in enumerate(NAMES)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace this history by the one that :meth:`state_dict` returned."""
        self.layers, self.steps = list(state["layers"]), list(state["steps"])
        self._per_column, self._in_last = state["per_column"], state["in_last"]
        empty = torch.full((len(self.layers), len(self.steps)), torch.nan)
        self.values = np.stack([state["values"].get(name, empty).numpy() for name in NAMES], axis=-1)

    def _make_rows(self, names: Mapping[str, Any]) -> None:
        known = {name: row for row, name in enumerate(self.layers)}
        if known.keys() >= names.keys():
            return
        # A new layer sorts behind the row of the one that it follows, and there in the order of its coming.
        places: list[tuple[int, int, str]] = [(row, -1, name) for name, row in known.items()]
        previous = -1
        for position, name in enumerate(names):
            previous = known.get(name, previous)
            if name not in known:
                places.append((previous, position, name))
        self.layers = [name for *_, name in sorted(places)]
        grown = np.full((len(self.layers), *self.values.shape[1:]), np.nan, np.float32)
        grown[[row for row, name in enumerate(self.layers) if name in known]] = self.values
        self.values = grown

    def _make_column(self) -> None:
        self.steps.append(0)
        self._in_last = 1
        self.values = np.insert(self.values, self.values.shape[1], np.nan, axis=1)

    def _merge_columns(self) -> None:
        self.steps = self.steps[1::2]
        self.values = _mean(self.values[:, ::2], self.values[:, 1::2], 1 / 2)
        self._per_column *= 2


def _mean(old: np.ndarray, new: np.ndarray, weight: float) -> np.ndarray:
    """Return the weighted mean; where one is NaN, the other."""
    mean = (1 - weight) * old + weight * new
    return np.where(np.isnan(old), new, np.where(np.isnan(new), old, mean)).astype(np.float32)
