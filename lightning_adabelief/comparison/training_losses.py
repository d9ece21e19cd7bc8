"""The losses that a module's ``training_step`` returns: their means, and whether they are finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TrainingLosses:
    """Add up losses on their device, which is waited for only when they are looked at.

    Losses are the numbers that ``training_step`` returns under a name with ``loss`` in it; a single number that it
    returns is called ``loss`` by Lightning.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, outputs: Any, accumulated: int) -> None:
        """Add a batch's losses.

        Args:
            outputs: As a callback's ``on_train_batch_end`` gets them.
            accumulated: The number of batches that make a step under automatic optimization: Lightning has divided
                ``loss`` by it.
        """
        for name, value in outputs.items() if isinstance(outputs, Mapping) else ():
            if "loss" in name and isinstance(value, Tensor) and value.numel() == 1:
                loss = value.detach().float().squeeze() * (accumulated if name == "loss" else 1)
                self._sums[name] = self._sums[name] + loss if name in self._sums else loss
                self._counts[name] = self._counts.get(name, 0) + 1

    def are_finite(self) -> bool:
        """Return False if one of the losses since the last :meth:`take_means` was not finite; this waits."""
        return all(bool(torch.isfinite(total)) for total in self._sums.values())

    def take_means(self) -> dict[str, float]:
        """Return the mean of each loss since the last call, as ``train/<name>``; this waits."""
        means = {f"train/{name}": total.item() / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means
