"""Samples of the weights of layers, for their medians, and for means that need no more.

A layer's sample is at most :data:`SAMPLE` of its weights, drawn once and for all by its size: the rank of a median is
within 2.2 points of 50 in 95 of 100 cases (twice 0.5 / sqrt(2048)), and the mean of a fraction within 0.022 of the
layer's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import WeightBeliefs
from lightning_adabelief.optim.averages import read_average, take_entries

SAMPLE = 2048
"""The number of weights of a layer that medians look at; in smaller layers, all."""


class Sample:
    """The sampled weights of some layers.

    Attributes:
        weights: Their averages, a row a layer, padded with NaN.

    Args:
        weights: See above.
        lengths: The number of weights in each row, without padding.
    """

    def __init__(self, weights: WeightBeliefs, lengths: Sequence[int]) -> None:
        self.weights = weights
        self._lengths = lengths

    @cached_property
    def moving(self) -> Tensor:
        """1 for each weight that has had a gradient, else NaN, as for those of words not met yet."""
        bounded = self.weights.trend.clamp(-1, 1)  # infinity over itself would be NaN
        return bounded / bounded

    @cached_property
    def silent_fractions(self) -> Tensor:
        """The fractions of the rows that have had no gradient at all, in float64 on the CPU."""
        return 1 - self.moving.nansum(dim=1).cpu().double() / torch.tensor(self._lengths)

    @cached_property
    def counted(self) -> Tensor:
        """1 for each weight that counts in medians and means, else NaN.

        A weight that has had no gradient does not move, and its s_t is all eps: it is left out, unless the layer has no
        others.
        """
        has_no_others = self.silent_fractions == 1
        if not has_no_others.any():
            return self.moving
        return self.moving.masked_fill(has_no_others.to(self.moving.device).unsqueeze(-1), 1.0)

    @property
    def middle(self) -> WeightBeliefs:
        """The weight of each row that has the median of what falls as the s_t rises that the step is divided by.

        Of an even number of weights, torch's median is the lower of the middle two: here the one of the larger s_t.
        """
        negative = -self.weights.denominator_var * self.counted
        return self.weights._replace(denominator_var=-negative.nanmedian(dim=1, keepdim=True).values)


def count_sampled(param: Tensor) -> int:
    """Return the number of entries in the sample of a parameter; a complex weight is two."""
    return min(2 * param.numel() if torch.is_complex(param) else param.numel(), SAMPLE)


def draw_entries(param: Tensor, averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return up to :data:`SAMPLE` entries of each average of a layer, flat.

    Args:
        param: The layer's parameter.
        averages: Plain tensors of real numbers, of which those of a complex parameter are pairs.
    """
    size = 2 * param.numel() if torch.is_complex(param) else param.numel()
    if size <= SAMPLE:
        return {name: read_average(average.flatten(), (size,), name) for name, average in averages.items()}
    indices = _sample_indices(size, param.device)
    return {name: take_entries(average, param, name, indices) for name, average in averages.items()}


def stack_rows(rows: list[Tensor], lengths: Sequence[int]) -> Tensor:
    """Return flat tensors as the rows of one, padded with NaN.

    Args:
        rows: The tensors.
        lengths: Their numbers of elements.
    """
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack(rows)
    table = rows[0].new_full((len(rows), longest), torch.nan)
    places = torch.arange(longest, device=table.device)
    return table.masked_scatter_(places < torch.tensor(lengths, device=table.device)[:, None], torch.cat(rows))


@functools.lru_cache(maxsize=1024)
def _sample_indices(size: int, device: torch.device) -> Tensor:
    """Return the indices of the sample of a tensor of that size.

    They are drawn at random, because a fixed stride can meet the same position of each convolution
    kernel; and in fours, because a cache line brings the neighbours along.
    """
    generator = torch.Generator().manual_seed(size)
    fours = torch.randint(size // 4, (SAMPLE // 4, 1), generator=generator).sort(dim=0).values
    return (4 * fours + torch.arange(4)).flatten().to(device)
