"""Sums and samples of many layers at once, at a small part of a step's cost: what statistics are made from.

Sums are over all weights, so they add up over layers. Medians, and the mean of ``eps_share``, are over at
most :data:`SAMPLE` weights of a layer, drawn once and for all by its size: the rank of such a median is
within 2.2 points of 50 in 95 of 100 cases (twice 0.5 / sqrt(2048)), and the mean of a fraction is within
0.022 of the layer's.
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
    step_denominators,
    step_gain_over_adam,
)
from lightning_adabelief.optim.options import as_number
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

CACHED_WEIGHTS = 1 << 19
"""The number of weights worked on at a time on a CPU, so that intermediate results stay in its cache."""


MAX_TREND_FRACTION = 1 - 1e-4
"""The fraction of v_t that m_t^2 can be told to be from an Adam's state, whose difference is rounded."""

MOMENTUM_ROUNDING = 1e-6
"""A sum of squares below this fraction of that of m_t is rounding: of float32, whose squares have 1e-7."""


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
            table = torch.stack([step_sums[param] for param in self.params])
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
        return _square(norms(self.grads))

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
        own_kind = (param.device, param.dtype if exp_avg is None else exp_avg.dtype, param in step_sums)
        if batch and (own_kind != kind or weights + param.numel() > BATCH_WEIGHTS):
            yield LayerBatch(batch, step_sums)
            batch, weights = [], 0
        batch.append(layer)
        weights, kind = weights + param.numel(), own_kind
    if batch:
        yield LayerBatch(batch, step_sums)


def sum_sizes(batch: LayerBatch) -> Columns:
    """Return ``size``, the number of weights."""
    return {"size": torch.tensor([param.numel() for param in batch.params], dtype=torch.float64)}


def sum_grads(batch: LayerBatch) -> Columns:
    """Return ``grad_square``, the sum of squared gradients; NaN once a gradient is gone."""
    return {"grad_square": batch.grad_squares}


def sum_weights(batch: LayerBatch) -> Columns:
    """Return ``weight_square``, the sum of squared weights."""
    if batch.step_sums:
        return {"weight_square": batch.step_sums["weight_square"]}
    return {"weight_square": _square(norms(batch.params))}


def sum_silent(batch: LayerBatch) -> Columns:
    """Return ``silent``, the number of weights that have had no gradient at all, by the sample."""
    trend = batch.sample.trend
    fraction = (trend == 0).where(~trend.isnan(), torch.nan).nanmean(dim=1)
    return {"silent": fraction.cpu().double() * sum_sizes(batch)["size"]}


def sum_beliefs(batch: LayerBatch) -> Columns:
    """Return ``s_t``, the sum of the corrected s_t, and ``update_square``, that of squared updates.

    Both come from one pass: the sum of s_t is the squared norm of the root, which the update divides by. The
    update is the whole movement of the weight, decoupled weight decay included.
    """
    if batch.step_sums:
        corrections = torch.tensor([scale.bias_correction2 for scale in batch.scales], dtype=torch.float64)
        s_t = batch.step_sums["exp_avg_var"] / corrections
        return {"s_t": s_t, "update_square": batch.step_sums["update_square"]}
    # The weights are read only where they decay; under amsgrad, where the step is divided by the largest s_t,
    # s_t itself needs its own root. Otherwise a column stands in for the one that is not needed.
    decays = any(scale.decay for scale in batch.scales)
    bounds = [scale.largest_update for scale in batch.scales]
    is_plain = not decays and min(bounds) == torch.inf
    weights = [_real_weight(*pair) for pair in zip(batch.params, batch.exp_avgs, strict=True)] if decays else None
    columns = [batch.exp_avgs, batch.denominator_vars, batch.exp_avg_vars, weights or batch.exp_avgs]
    lrs = [scale.lr / scale.bias_correction1 for scale in batch.scales]
    root_norms: list[Tensor] = []
    update_norms: list[Tensor] = []
    indices: list[int] = []
    for pieces in _split_for_cache(*columns):
        layer_indices, exp_avgs, denominator_vars, exp_avg_vars, thetas = map(list, zip(*pieces, strict=True))
        indices += layer_indices
        roots = list(torch._foreach_sqrt(denominator_vars))
        root_norms += torch._foreach_norm(torch._foreach_sqrt(exp_avg_vars) if batch.is_amsgrad else roots)
        denominators = step_denominators(roots, [batch.scales[index] for index in layer_indices])
        updates = list(torch._foreach_div(exp_avgs, denominators))
        if not is_plain:
            torch._foreach_mul_(updates, [lrs[index] for index in layer_indices])
            updates = [update.clamp_(-bounds[i], bounds[i]) for update, i in zip(updates, layer_indices, strict=True)]
        if decays:
            # theta_t = (1 - a) theta_{t-1} - u, so theta_{t-1} - theta_t = (u + a theta_t) / (1 - a)
            torch._foreach_add_(updates, torch._foreach_mul(thetas, [batch.scales[i].decay for i in layer_indices]))
        update_norms += torch._foreach_norm(updates)
    count = len(batch.scales)
    root_norm, update_norm = (_add_up_norms(found, indices, count) for found in (root_norms, update_norms))
    sizes = [var.numel() * scale.bias_correction2 for var, scale in zip(batch.exp_avg_vars, batch.scales, strict=True)]
    mean = root_norm.square() / root_norm.new_tensor(sizes)
    factors = lrs if is_plain else [1 / (1 - scale.decay) for scale in batch.scales]
    update_norm = update_norm * update_norm.new_tensor(factors)
    return {"s_t": mean.double() * sum_sizes(batch)["size"], "update_square": _square(update_norm)}


def _real_weight(param: Tensor, exp_avg: Tensor) -> Tensor:
    """Return a parameter in its momentum's dtype and form, gathered if it is sharded."""
    weight = full_tensor(param.detach())
    return (torch.view_as_real(weight) if torch.is_complex(weight) else weight).to(exp_avg.dtype)


def sum_gain(batch: LayerBatch) -> Columns:
    """Return ``gain_square``, the sum of v_t / s_t, by the sample; without weights that have had no gradient.

    From an Adam's state, where s_t is v_t less m_t^2 and its inverse has no mean, a layer has one ratio for all
    its weights, 1 / (beta1 (1 - mean(m_t^2 / v_t))): a lower bound where its weights differ.
    """
    weights = batch.sample
    if weights.square is None:
        ratio = step_gain_over_adam(weights).square().nanmean(dim=1)
    else:
        trend_fraction = (weights.trend.square() / weights.square).nanmean(dim=1).clamp(max=MAX_TREND_FRACTION)
        ratio = weights.scale.noise_scale.squeeze(-1) / (1 - trend_fraction)
    ratio = ratio.nan_to_num(nan=1.0, posinf=torch.inf)  # a layer without any gradient moves as Adam's does
    return {"gain_square": ratio.cpu().double() * sum_sizes(batch)["size"]}


def sum_grads_and_momentum(batch: LayerBatch) -> Columns:
    """Return the sums that the cosine of the gradient g_t and the momentum before it, m_{t-1}, is made from.

    ``grad_momentum`` is their inner product, ``momentum_square`` and ``used_grad_square`` are their sums of
    squares. m_{t-1} is (m_t - (1 - beta1) g_t) / beta1, so its sums follow from those of m_t. g_t is the gradient
    as the optimizer uses it: negated under ``maximize``, with a coupled weight decay added.

    All are 0 where there is no momentum: in the first step, with beta1 = 0, and where all gradients before were
    0, which is where the sum is no larger than the rounding of m_t; they are NaN once a gradient is gone.
    """
    count = len(batch.params)
    beta1 = torch.tensor([float(as_number(group["betas"][0])) for group in batch.groups], dtype=torch.float64)
    if batch.step_sums:
        names = ("grad_momentum", "momentum_square", "used_grad_square")
        return {name: batch.step_sums[name].where(beta1 > 0, 0.0) for name in names}
    if batch.grads is None:
        nan = torch.full((count,), torch.nan, dtype=torch.float64)
        return {"grad_momentum": nan, "momentum_square": nan, "used_grad_square": nan}
    grads = [_used_grad(*layer) for layer in zip(batch.params, batch.grads, batch.exp_avgs, batch.groups, strict=True)]
    products: list[Tensor] = []
    indices: list[int] = []
    for pieces in _split_for_cache(grads, batch.exp_avgs):
        indices += [index for index, *_ in pieces]
        products += [torch.dot(grad, exp_avg) for _, grad, exp_avg in pieces]
    product = torch.zeros(count, dtype=torch.float64)
    product.index_add_(0, torch.tensor(indices), torch.stack(products).cpu().double())
    grad_square = _square(norms(grads)) if any(map(_decays_gradient, batch.groups)) else batch.grad_squares
    exp_avg_square = _square(norms(batch.exp_avgs))
    weight = 1 - beta1
    grad_momentum = (product - weight * grad_square) / beta1
    momentum_square = (exp_avg_square - 2 * weight * product + weight.square() * grad_square) / beta1.square()
    has_momentum = (
        (torch.tensor(batch.steps) > 1) & (beta1 > 0) & (momentum_square > MOMENTUM_ROUNDING * exp_avg_square)
    )
    return {
        "grad_momentum": grad_momentum.where(has_momentum, 0.0),
        "momentum_square": momentum_square.where(has_momentum, 0.0),
        "used_grad_square": grad_square.where(has_momentum, 0.0),
    }


def _used_grad(param: Tensor, grad: Tensor, exp_avg: Tensor, group: dict[str, Any]) -> Tensor:
    """Return the gradient as the optimizer's momentum has taken it up, in the momentum's dtype and form."""
    grad, param = full_tensor(grad.detach()), full_tensor(param.detach())
    if torch.is_complex(grad):
        grad, param = torch.view_as_real(grad), torch.view_as_real(param)
    grad = grad.to(exp_avg.dtype)
    if group.get("maximize"):
        grad = -grad
    if _decays_gradient(group):
        # The weight before the step would be exact; the step is small beside it, and the decay beside the gradient.
        grad = grad.add(param.to(grad.dtype), alpha=as_number(group["weight_decay"]))
    return grad


def _decays_gradient(group: dict[str, Any]) -> bool:
    """True if weight decay is added to the gradient."""
    return bool(group.get("weight_decay")) and not group.get("weight_decouple", True)


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


def _square(norm: Tensor) -> Tensor:
    """Return the squares in float64, on the CPU, as not every device has float64; exact for a float32."""
    return norm.cpu().double().square()


def _split_for_cache(*columns: Sequence[Tensor]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut tensors into flat pieces, all columns alike, and yield as many at a time as a cache holds.

    Yields:
        Lists of a layer's index and its piece in each column.
    """
    limit = CACHED_WEIGHTS if columns[0][0].device.type == "cpu" else BATCH_WEIGHTS
    pieces: list[tuple[Any, ...]] = []
    room = limit
    for index, tensors in enumerate(zip(*columns, strict=True)):
        for cut in _cut(tensors, limit):
            if cut[0].numel() > room:
                yield pieces
                pieces, room = [], limit
            pieces.append((index, *cut))
            room -= cut[0].numel()
    yield pieces


def _cut(tensors: Sequence[Tensor], limit: int) -> list[tuple[Tensor, ...]]:
    """Cut tensors of one shape into flat pieces of at most ``limit`` numbers, all tensors alike."""
    if tensors[0].numel() <= limit and all(map(Tensor.is_contiguous, tensors)):
        return [tuple(map(Tensor.flatten, tensors))]  # quick, for networks of thousands of small tensors
    # In the order of memory, flattening copies nothing, whatever the layout (channels last, say).
    strides = tensors[0].stride()
    memory_order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    flat = [tensor.permute(memory_order).reshape(-1).split(limit) for tensor in tensors]
    return list(zip(*flat, strict=True))


def _add_up_norms(norms_of_pieces: list[Tensor], indices: list[int], count: int) -> Tensor:
    """Return the norms of ``count`` tensors from those of their pieces, on the CPU."""
    squares = _square(torch.stack(norms_of_pieces))
    sums = squares.new_zeros(count).index_add_(0, torch.tensor(indices), squares)
    return sums.sqrt().to(norms_of_pieces[0].dtype)


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
