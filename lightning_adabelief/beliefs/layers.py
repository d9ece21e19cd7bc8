"""Many layers at once.

:mod:`lightning_adabelief.beliefs.sums` adds up all weights of a layer. Medians, and the means of ``eps_share`` and of
v_t / s_t, are over a sample (:mod:`lightning_adabelief.beliefs.sample`).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import BeliefScale, WeightBeliefs, belief_scale
from lightning_adabelief.beliefs.sample import Sample, count_sampled, draw_entries, stack_rows
from lightning_adabelief.optim.averages import find_dtype, unpack_average
from lightning_adabelief.optim.migrate import estimate_exp_avg_var, measure_agreement
from lightning_adabelief.optim.shards import full_tensor
from lightning_adabelief.optim.step_sums import SUMS, StepSums

Layer = tuple[Tensor, dict[str, Any], dict[str, Any]]
"""A parameter, its state in the optimizer and its param group."""

Columns = dict[str, Tensor]
"""Float64 tensors on the CPU, by name, of one number a layer."""

SAMPLED_AT_ONCE = (1 << 15) - 1
"""The number of sampled weights, padding included, worked on at a time on a CPU: torch divides more among threads.

On a machine with other work they would wait for each other in each of about a hundred small operations.
"""

BATCH_WEIGHTS = 1 << 24
"""The number of weights of layers that are worked on together, which bounds the memory used."""


class LayerBatch:
    """Layers of one device and dtype, whose weights can be gone through in pieces, and sampled.

    Args:
        layers: Parameters after the step, with their gradients still in place, not empty, each with
            its state, at least one step old, and its param group. DTensors are gathered, and then
            every rank must call. States of an optimizer without AdaBelief's averages may be anything, and
            then only weights and gradients can be asked for.
        step_sums: The sums that the step has taken on its way, of all these layers or of none.

    Attributes:
        sums: The :data:`~lightning_adabelief.optim.step_sums.SUMS` of each layer; empty until they are taken.
    """

    def __init__(self, layers: Sequence[Layer], step_sums: StepSums | None = None) -> None:
        self.params = [param for param, _, _ in layers]
        self.states = [state for _, state, _ in layers]
        self.groups = [group for _, _, group in layers]
        self.sums: Columns = {}
        if step_sums and self.params[0] in step_sums:
            table = torch.stack([step_sums[param] for param in self.params]).cpu()
            self.sums = dict(zip(SUMS, table.unbind(dim=1), strict=True))

    @cached_property
    def sizes(self) -> Tensor:
        """The numbers of weights, in float64 on the CPU."""
        return torch.tensor([param.numel() for param in self.params], dtype=torch.float64)

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

    @property
    def is_amsgrad(self) -> bool:
        """True if some layer's step is divided by something else than its s_t."""
        return any(group["amsgrad"] for group in self.groups)

    @cached_property
    def averages(self) -> list[dict[str, Tensor]]:
        """The averages of each layer by their names, real, coded as its state has them; DTensors are gathered."""
        return [_read_averages(*layer) for layer in zip(self.params, self.states, self.groups, strict=True)]

    @cached_property
    def agreements(self) -> list[Tensor | None]:
        """The agreement of each layer's gradients, by an Adam's state; None for an AdaBelief's."""
        layers = zip(self.averages, self.steps, self.groups, strict=True)
        return [
            measure_agreement(averages["exp_avg"], averages["exp_avg_sq"], step, group["betas"])
            if "exp_avg_sq" in averages
            else None
            for averages, step, group in layers
        ]

    def read_beliefs(self, layer: int, averages: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return uncorrected m_t, s_t, and the s_t that the step is divided by, of some of a layer's weights.

        Args:
            layer: The layer's position.
            averages: Those weights' part of :attr:`averages`, decoded.
        """
        exp_avg, exp_avg_var = averages["exp_avg"], averages.get("exp_avg_var")
        if exp_avg_var is None:
            square, betas = averages["exp_avg_sq"], self.groups[layer]["betas"]
            agreement = self.agreements[layer]
            exp_avg_var = estimate_exp_avg_var(exp_avg, square, self.steps[layer], betas, "updated", agreement)
        return exp_avg, exp_avg_var, averages.get("max_exp_avg_var", exp_avg_var)

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples of the layers' weights, in the layers' order; on a CPU, of some layers at a time."""
        lengths = list(map(count_sampled, self.params))
        limit = SAMPLED_AT_ONCE if self.params[0].device.type == "cpu" else BATCH_WEIGHTS
        samples, begin = [], 0
        for end in range(1, len(lengths) + 1):
            if end == len(lengths) or (end + 1 - begin) * lengths[end] > limit:
                samples.append(self._draw_sample(begin, lengths[begin:end]))
                begin = end
        return samples

    def _draw_sample(self, begin: int, lengths: list[int]) -> Sample:
        """Draw the sample of as many layers as there are lengths, from a position on."""
        rows = range(begin, begin + len(lengths))
        drawn = [draw_entries(self.params[row], self.averages[row]) for row in rows]
        columns = zip(*map(self.read_beliefs, rows, drawn), strict=True)
        exp_avgs, exp_avg_vars, denominator_vars = map(list, columns)
        exp_avg, exp_avg_var = stack_rows(exp_avgs, lengths), stack_rows(exp_avg_vars, lengths)
        squares = [entries["exp_avg_sq"] for entries in drawn if "exp_avg_sq" in entries]
        scales = [self.scales[row] for row in rows]
        if all(scale is scales[0] for scale in scales):
            scales = scales[:1]
        scale = BeliefScale(*torch.tensor(scales, dtype=exp_avg.dtype, device=exp_avg.device).T.unsqueeze(-1))
        weights = WeightBeliefs(
            trend=exp_avg / scale.bias_correction1,
            belief=exp_avg_var / scale.bias_correction2,
            denominator_var=stack_rows(denominator_vars, lengths) if self.is_amsgrad else exp_avg_var,
            scale=scale,
            square=stack_rows(squares, lengths) / scale.bias_correction2 if squares else None,
        )
        return Sample(weights, lengths)


def split_into_batches(
    layers: Sequence[Layer], step_sums: StepSums | None = None
) -> Iterator[tuple[list[int], LayerBatch]]:
    """Split layers into batches of one device and dtype, of neighbours in size.

    Args:
        layers: As :class:`LayerBatch` takes them.
        step_sums: The sums that the step has taken of some of them; layers with and without are not in one batch.

    Yields:
        The positions of some layers, and their batch: of up to :data:`BATCH_WEIGHTS` weights, in the order of size.
    """
    step_sums = step_sums or {}
    kinds: defaultdict[Any, list[int]] = defaultdict(list)
    sizes = [param.numel() for param, _, _ in layers]
    for position, (param, state, _) in enumerate(layers):
        exp_avg = state.get("exp_avg")  # which an optimizer without averages lacks
        dtype = param.dtype if exp_avg is None else find_dtype(exp_avg)
        kinds[param.device, dtype, param in step_sums].append(position)
    for positions in kinds.values():
        batch: list[int] = []
        weights = 0
        for position in sorted(positions, key=sizes.__getitem__):
            size = sizes[position]
            if batch and weights + size > BATCH_WEIGHTS:
                yield batch, LayerBatch([layers[each] for each in batch], step_sums)
                batch, weights = [], 0
            batch.append(position)
            weights += size
        yield batch, LayerBatch([layers[each] for each in batch], step_sums)


@torch.no_grad()
def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norms of tensors of one device.

    Args:
        tensors: Of any shape and dtype; not empty. A DTensor's norm is that of the full tensor, and
            every rank must call.

    Returns:
        A float32 tensor of one number a tensor, or float64 where they are; nothing waits for the device.
    """
    dtypes = {tensor.dtype for tensor in tensors}
    if any(dtype.is_complex for dtype in dtypes):
        return norms([torch.view_as_real(t) if torch.is_complex(t) else t for t in tensors])
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)  # squares of float16 overflow
    if any(hasattr(tensor, "full_tensor") for tensor in tensors):
        return torch.stack([full_tensor(torch.linalg.vector_norm(tensor, dtype=dtype)) for tensor in tensors])
    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype))


def square_norms(norm: Tensor) -> Tensor:
    """Return the squares in float64, on the CPU, as not every device has float64; exact for a float32."""
    return norm.cpu().double().square()


def _read_averages(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Tensor]:
    square = "exp_avg_sq" if "exp_avg_sq" in state else "exp_avg_var"
    found = {}
    for name in ("exp_avg", square, *(["max_exp_avg_var"] if group["amsgrad"] else [])):
        value = state[name]
        if hasattr(value, "full_tensor"):
            value = full_tensor(unpack_average(value, param, name))
        found[name] = torch.view_as_real(value) if torch.is_complex(param) else value
    return found
