"""Sums over all weights of each layer, which add up over layers: what most statistics are made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import step_denominators, step_gain_over_adam
from lightning_adabelief.beliefs.layers import BATCH_WEIGHTS, Columns, LayerBatch, norms, square_norms
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.shards import full_tensor

CACHED_WEIGHTS = 1 << 19
"""The number of weights worked on at a time on a CPU, so that intermediate results stay in its cache."""


MAX_TREND_FRACTION = 1 - 1e-4
"""The fraction of v_t that m_t^2 can be told to be from an Adam's state, whose difference is rounded."""

MOMENTUM_ROUNDING = 1e-6
"""A sum of squares below this fraction of that of m_t is rounding: of float32, whose squares have 1e-7."""


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
    return {"weight_square": square_norms(norms(batch.params))}


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
    return {"s_t": mean.double() * sum_sizes(batch)["size"], "update_square": square_norms(update_norm)}


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
    grad_square = square_norms(norms(grads)) if any(map(_decays_gradient, batch.groups)) else batch.grad_squares
    exp_avg_square = square_norms(norms(batch.exp_avgs))
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
    squares = square_norms(torch.stack(norms_of_pieces))
    sums = squares.new_zeros(count).index_add_(0, torch.tensor(indices), squares)
    return sums.sqrt().to(norms_of_pieces[0].dtype)
