"""Windows of text for truncated backpropagation through time: texts side by side, read from window to window."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

IGNORED = -100
"""The target of a place that holds no word; torch's cross-entropy leaves it out by default."""

SHORTEST_WINDOW = 5
LENGTH_DEVIATION = 5.0
HALVED_SHARE = 0.05
"""Share of the random windows that are half as long, so that not all begin near multiples of one length."""


class Windows(Dataset):
    """A text cut into columns that are read side by side, from top to bottom, window by window.

    The target of a word is the one after it, so that each word of the text is a target once; the first is
    predicted from an end of line.

    Args:
        words: Numbers of the text's words (n,).
        columns: Number of columns; the last one is filled up with ``fill``.
        fill: Number of the end of line.
    """

    def __init__(self, words: Tensor, columns: int, fill: int) -> None:
        self.height = -(-len(words) // columns)
        size = self.height * columns
        inputs, targets = words.new_full((size,), fill), words.new_full((size,), IGNORED)
        inputs[1 : len(words)] = words[:-1]
        targets[: len(words)] = words
        self.inputs, self.targets = (flat.view(columns, self.height).t().contiguous() for flat in (inputs, targets))

    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return a window's words and its targets, both (T, columns)."""
        return self.inputs[rows], self.targets[rows]


class WindowSampler(Sampler[slice]):
    """The rows of one window after the other, in the order of the text.

    Args:
        height: Number of rows.
        length: Rows of a window; the last may be shorter.
        is_random: Draw the lengths anew for each epoch, from torch's global generator.
    """

    def __init__(self, height: int, length: int, is_random: bool = False) -> None:
        self.height = height
        self.length = length
        self.is_random = is_random

    def __len__(self) -> int:
        """Return the number of windows, the same in each epoch."""
        if not self.is_random:
            return -(-self.height // self.length)
        mean_length = self.length * (1 - HALVED_SHARE / 2)
        return max(1, round(self.height / mean_length))

    def __iter__(self) -> Iterator[slice]:
        """Return an iterator over the windows."""
        ends = self._draw_ends() if self.is_random else [*range(self.length, self.height, self.length), self.height]
        return iter([slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)])

    def _draw_ends(self) -> list[int]:
        """Draw lengths as AWD-LSTM's code does, and stretch them so that a fixed number of windows covers the text."""
        halved = torch.rand(len(self)) < HALVED_SHARE
        means = torch.where(halved, self.length / 2, float(self.length))
        lengths = torch.normal(means, LENGTH_DEVIATION).clamp(min=SHORTEST_WINDOW).double()
        return (lengths.cumsum(0) * (self.height / lengths.sum())).round().long().tolist()
