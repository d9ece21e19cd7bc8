"""Many layers at once, with their averages gathered and samples of their weights drawn.

:mod:`lightning_adabelief.beliefs.sums` adds up all weights of a layer. Medians, and the mean of
``eps_share``, are over at most :data:`SAMPLE` weights of a layer, drawn once and for all by its size: the
rank of such a median is within 2.2 points of 50 in 95 of 100 cases (twice 0.5 / sqrt(2048)), and the mean
of a fraction is within 0.022 of the layer's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import (
    BeliefScale,
    WeightBeliefs,
    belief_scale,
    moments,
    read_square,
)
from lightning_adabelief.optim.averages import find_dtype
from lightning_adabelief.optim.shards import full_tensor
from lightning_adabelief.optim.step_sums import SUMS, StepSums

Layer = tuple[Tensor, dict[str, Any], dict[str, Any]]
"""A parameter, its state in the optimizer and its param group."""

Columns = dict[str, Tensor]
"""Float64 tensors on the CPU, by name, of one number a layer."""

SAMPLE = 2048
"""The number of weights of a layer that medians look at; in smaller layers, all."""

BATCH_WEIGHTS = 1 << 24
"""The number of weights of layers that are worked on together, which bounds the memory used."""


class LayerBatch:
    """Layers of one device and dtype, with their averages gathered and their samples drawn once.

    Args:
        layers: Parameters after the step, with their gradients still in place, not empty, each with
            its state, at least one step old, and its param group. DTensors are gathered, and then
            every rank must call. States of an optimizer without AdaBelief's averages may be anything, and
            then only weights and gradients can be asked for.
        step_sums: The sums that the step has taken on its way, of all these layers or of none.
    """

    def __init__(self, layers: Sequence[Layer], step_sums: StepSums | None = None) -> None:
        self.params = [param for param, _, _ in layers]
        self.states = [state for _, state, _ in layers]
        self.groups = [group for _, _, group in layers]
        self.step_sums: Columns | None = None
        if step_sums and self.params[0] in step_sums:
            table = torch.stack([step_sums[param] for param in self.params]).cpu()
            self.step_sums = dict(zip(SUMS, table.unbind(dim=1), strict=True))

    @cached_property
    def steps(self) -> list[float]:
        """The number of steps that each layer has taken."""
        return [float(state["step"]) for state in self.states]

    @cached_property
    def scales(self) -> list[BeliefScale]:
        """The scalars that all weights of a layer share."""
        known: dict[tuple[int, float], BeliefScale] = {}  # most layers of a group are at the same step
        for step, state, group in zip(self.steps, self.states, self.groups, strict=True):
            if (id(group), step) not in known:
                known[id(group), step] = belief_scale(state, group)
        return [known[id(group), step] for step, group in zip(self.steps, self.groups, strict=True)]

    @cached_property
    def averages(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The averages of each layer (:func:`~lightning_adabelief.beliefs.elementwise.moments`)."""
        layers = zip(self.params, self.states, self.groups, strict=True)
        exp_avgs, exp_avg_vars, denominator_vars = zip(*(moments(*layer) for layer in layers), strict=True)
        return list(exp_avgs), list(exp_avg_vars), list(denominator_vars)

    @property
    def exp_avgs(self) -> list[Tensor]:
        """m_t, uncorrected."""
        return self.averages[0]

    @property
    def exp_avg_vars(self) -> list[Tensor]:
        """s_t, uncorrected."""
        return self.averages[1]

    @property
    def denominator_vars(self) -> list[Tensor]:
        """The uncorrected s_t that the step is divided by."""
        return self.averages[2]

    @cached_property
    def squares(self) -> list[Tensor]:
        """v_t, uncorrected, of all layers; none where they are an AdaBelief's."""
        squares = [read_square(*pair) for pair in zip(self.params, self.states, strict=True)]
        return [square for square in squares if square is not None]

    @property
    def is_amsgrad(self) -> bool:
        """True if some layer's step is divided by something else than its s_t."""
        pairs = zip(self.denominator_vars, self.exp_avg_vars, strict=True)
        return any(largest is not own for largest, own in pairs)

    @cached_property
    def grads(self) -> list[Tensor] | None:
        """The gradients, or None once one is gone."""
        grads = [param.grad for param in self.params if param.grad is not None]
        return grads if len(grads) == len(self.params) else None

    @cached_property
    def grad_squares(self) -> Tensor:
        """The sums of squared gradients, in float64 on the CPU; NaN once one is gone."""
        if self.step_sums:
            return self.step_sums["grad_square"]
        if self.grads is None:
            return torch.full((len(self.params),), torch.nan, dtype=torch.float64)
        return square_norms(norms(self.grads))

    @cached_property
    def sample(self) -> WeightBeliefs:
        """The averages of up to :data:`SAMPLE` weights of each layer, a row each, padded with NaN."""
        like = self.exp_avgs[0]
        scale = BeliefScale(*torch.tensor(self.scales, dtype=like.dtype, device=like.device).T.unsqueeze(-1))
        trend = _draw_sample(self.exp_avgs) / scale.bias_correction1
        var = _draw_sample(self.exp_avg_vars)
        denominator_var = _draw_sample(self.denominator_vars) if self.is_amsgrad else var
        square = _draw_sample(self.squares) / scale.bias_correction2 if self.squares else None
        return WeightBeliefs(trend, var / scale.bias_correction2, denominator_var, scale, square)


def split_into_batches(layers: Sequence[Layer], step_sums: StepSums | None = None) -> Iterator[LayerBatch]:
    """Split layers into batches: neighbours of one device and dtype, up to :data:`BATCH_WEIGHTS` weights together.

    Args:
        layers: As :class:`LayerBatch` takes them; the order is kept.
        step_sums: The sums that the step has taken of some of them; layers with and without are not in one batch.
    """
    step_sums = step_sums or {}
    batch: list[Layer] = []
    weights = 0
    kind = None
    for layer in layers:
        param, state, _ = layer
        exp_avg = state.get("exp_avg")  # which an optimizer without averages lacks
        own_kind = (param.device, param.dtype if exp_avg is None else find_dtype(exp_avg), param in step_sums)
        if batch and (own_kind != kind or weights + param.numel() > BATCH_WEIGHTS):
            yield LayerBatch(batch, step_sums)
            batch, weights = [], 0
        batch.append(layer)
        weights, kind = weights + param.numel(), own_kind
    if batch:
        yield LayerBatch(batch, step_sums)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norms of tensors of one device.

    Args:
        tensors: Of any shape and dtype; not empty. A DTensor's norm is that of the full tensor, and
            every rank must call.

    Returns:
        A float32 tensor of one number a tensor, or float64 where they are; nothing waits for the device.
    """
    tensors = [torch.view_as_real(t.detach()) if torch.is_complex(t) else t.detach() for t in tensors]
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    if any(hasattr(tensor, "full_tensor") for tensor in tensors):
        return torch.stack([full_tensor(torch.linalg.vector_norm(tensor, dtype=dtype)) for tensor in tensors])
    return torch.stack(torch._foreach_norm(tensors, 2, dtype))  # float32 at least: squares of float16 overflow


def square_norms(norm: Tensor) -> Tensor:
    """Return the squares in float64, on the CPU, as not every device has float64; exact for a float32."""
    return norm.cpu().double().square()


def _draw_sample(tensors: list[Tensor]) -> Tensor:
    """Return up to :data:`SAMPLE` entries of each tensor, a row each."""
    sizes = [tensor.numel() for tensor in tensors]
    width = min(SAMPLE, max(sizes))
    entries = [
        tensor.reshape(-1) if size <= width else torch.take(tensor, _sample_indices(size, tensor.device))
        for tensor, size in zip(tensors, sizes, strict=True)
    ]
    rows = tensors[0].new_full((len(tensors), width), torch.nan)
    columns = torch.arange(width, device=rows.device)
    rows[columns < torch.tensor(sizes, device=rows.device).unsqueeze(-1)] = torch.cat(entries)
    return rows


@functools.lru_cache(maxsize=1024)
def _sample_indices(size: int, device: torch.device) -> Tensor:
    """Return the indices of the sample of a tensor of that size.

    They are drawn at random, because a fixed stride can meet the same position of each convolution
    kernel; and in fours, because a cache line brings the neighbours along.
    """
    generator = torch.Generator().manual_seed(size)
    fours = torch.randint(size // 4, (SAMPLE // 4, 1), generator=generator).sort(dim=0).values
    return (4 * fours + torch.arange(4)).flatten().to(device)
