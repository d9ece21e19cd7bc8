"""The tensors that one step of the optimizer reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

Row: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""A parameter's entries of all columns up to ``corrections_low``, but ``steps``."""


class StepTensors(NamedTuple):
    """The tensors of a step in columns: entry i of each column belongs to parameter i.

    Attributes:
        params: Parameters of any shapes; updated in place.
        grads: Their gradients.
        exp_avgs: Their m_t, each of its parameter's shape, or packed in 8 bits; updated in place.
        exp_avg_vars: Their s_t, like ``exp_avgs``.
        max_exp_avg_vars: Their largest s_t so far, like ``exp_avgs``; empty without amsgrad.
        steps: The number of steps each has taken, 0-dim tensors; 1 is added in place.
        corrections: Those of parameters of 16 bits (:mod:`lightning_adabelief.optim.low_precision`), like ``params``,
            ``None`` where there is none; updated in place. Empty where no parameter is of 16 bits.
        corrections_low: Their last 8 bits, like ``corrections``.
        rounding_seeds: The seeds of the stochastic rounding of parameters and averages; empty where there is none.
    """

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_vars: list[Tensor]
    max_exp_avg_vars: list[Tensor]
    steps: list[Tensor]
    corrections: Sequence[Tensor | None] = ()
    corrections_low: Sequence[Tensor | None] = ()
    rounding_seeds: Sequence[int] = ()

    @classmethod
    def empty(cls) -> StepTensors:
        """Return empty columns, to be filled."""
        return cls([], [], [], [], [], [], [], [], [])

    def select(self, members: Sequence[int]) -> StepTensors:
        """Return the columns of some parameters, by their indices; an empty column stays empty."""
        columns: Iterable[Any] = ([column[i] for i in members] if column else [] for column in self)
        return StepTensors(*columns)

    def columns_in_param_shape(self) -> list[list[Tensor]]:
        """Return the columns from ``params`` on, without ``max_exp_avg_vars`` where it is empty."""
        columns = [self.params, self.grads, self.exp_avgs, self.exp_avg_vars]
        return [*columns, self.max_exp_avg_vars] if self.max_exp_avg_vars else columns

    def rows(self) -> Iterator[Row]:
        """Iterate over (param, grad, exp_avg, exp_avg_var, and max_exp_avg_var and both corrections, or None)."""
        none = [None] * len(self.params)
        maxima: Iterable[Tensor | None] = self.max_exp_avg_vars or none
        corrections = self.corrections or none, self.corrections_low or none
        return zip(self.params, self.grads, self.exp_avgs, self.exp_avg_vars, maxima, *corrections, strict=True)
