"""Sums over all weights of each layer, which add up over layers: what most statistics are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.beliefs.elementwise import square_gain_over_adam, step_denominators
from lightning_adabelief.beliefs.layers import Columns, LayerBatch, norms, square_norms
from lightning_adabelief.beliefs.pieces import Piece, cut_into_pieces
from lightning_adabelief.beliefs.sample import Sample
from lightning_adabelief.optim.options import as_number

MAX_TREND_FRACTION = 1 - 1e-4
"""The fraction of v_t that m_t^2 can be told to be from an Adam's state, whose difference is rounded."""

MOMENTUM_ROUNDING = 1e-6
"""A sum of squares below this fraction of that of m_t is rounding: of float32, whose squares have 1e-7."""


def sum_sizes(batch: LayerBatch) -> Columns:
    """Return ``size``, the number of weights."""
    return {"size": batch.sizes}


def sum_grads(batch: LayerBatch) -> Columns:
    """Return ``grad_square``, the sum of squared gradients."""
    return {"grad_square": batch.sums["grad_square"]}


def sum_weights(batch: LayerBatch) -> Columns:
    """Return ``weight_square``, the sum of squared weights."""
    return {"weight_square": batch.sums["weight_square"]}


def sum_silent(batch: LayerBatch) -> Columns:
    """Return ``silent``, the number of weights that have had no gradient at all, by the sample."""
    return {"silent": torch.cat([sample.silent_fractions for sample in batch.samples]) * batch.sizes}


def sum_beliefs(batch: LayerBatch) -> Columns:
    """Return ``s_t``, the sum of the corrected s_t, and ``update_square``, that of squared updates.

    The update is the whole movement of the weight, decoupled weight decay included.
    """
    corrections = torch.tensor([scale.bias_correction2 for scale in batch.scales], dtype=torch.float64)
    return {"s_t": batch.sums["exp_avg_var"] / corrections, "update_square": batch.sums["update_square"]}


def sum_gain(batch: LayerBatch) -> Columns:
    """Return ``gain_square``, the sum of v_t / s_t, by the sample; without weights that have had no gradient.

    From an Adam's state, where s_t is v_t less m_t^2 and its inverse has no mean, a layer has one ratio for all
    its weights, 1 / (beta1 (1 - mean(m_t^2 / v_t))): a lower bound where its weights differ.
    """
    ratio = torch.cat(list(map(_average_gain, batch.samples))).cpu().double()
    ratio = ratio.nan_to_num(nan=1.0, posinf=torch.inf)  # a layer without any gradient moves as Adam's does
    return {"gain_square": ratio * batch.sizes}


def _average_gain(sample: Sample) -> Tensor:
    weights = sample.weights
    if weights.square is None:
        return (square_gain_over_adam(weights) * sample.moving).nanmean(dim=1)
    trend_fraction = (weights.trend.square() / weights.square).nanmean(dim=1).clamp(max=MAX_TREND_FRACTION)
    return weights.scale.noise_scale.squeeze(-1) / (1 - trend_fraction)


def sum_grads_and_momentum(batch: LayerBatch) -> Columns:
    """Return the sums that the cosine of the gradient g_t and the momentum before it, m_{t-1}, is made from.

    ``grad_momentum`` is their inner product, ``momentum_square`` and ``used_grad_square`` are their sums of
    squares. g_t is the gradient as the optimizer uses it: negated under ``maximize``, with a coupled weight decay
    added. All are 0 where there is no momentum: in the first step, with beta1 = 0, and where all gradients before
    were 0.
    """
    has_momentum = (_find_beta1(batch) > 0) & (batch.sums["momentum_square"] != 0)
    names = ("grad_momentum", "momentum_square", "used_grad_square")
    return {name: batch.sums[name].where(has_momentum, 0.0) for name in names}


def take_norms(batch: LayerBatch) -> Columns:
    """Return, of the sums that a fused step takes on its way, those of weights and gradients."""
    grads = [param.grad for param in batch.params if param.grad is not None]
    assert len(grads) == len(batch.params), "layers without a gradient are not measured"
    return {"weight_square": square_norms(norms(batch.params)), "grad_square": square_norms(norms(grads))}


def take_sums(batch: LayerBatch) -> Columns:
    """Return the sums that a fused step takes on its way, of what there is after a step, in one pass over memory.

    Args:
        batch: The layers, of an optimizer with averages that can be read.

    Returns:
        All of :data:`~lightning_adabelief.optim.step_sums.SUMS`. Those of m_{t-1} are 0 where they are no larger than
        the rounding of m_t, which they follow from.
    """
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    positions: list[int] = []
    for pieces in cut_into_pieces(batch):
        positions += [piece.layer for piece in pieces]
        squares = {"weight_square": norms([piece.param for piece in pieces])}
        squares["grad_square"] = norms([piece.grad for piece in pieces])
        for name, values in (squares | _measure_momentum(batch, pieces) | _measure_update(batch, pieces)).items():
            found[name].append(values)
    sums = {name: _add_up_pieces(torch.cat(parts), name, positions, len(batch.params)) for name, parts in found.items()}
    return sums | _look_back(batch, sums)


def _add_up_pieces(values: Tensor, name: str, positions: list[int], count: int) -> Tensor:
    """Return the sums of ``count`` layers from those of pieces of them, or from the norms of these."""
    sums = values.cpu().double() if name in ("grad_momentum", "exp_avg_var") else square_norms(values)
    return sums.new_zeros(count).index_add_(0, torch.tensor(positions), sums)


def _measure_momentum(batch: LayerBatch, pieces: Sequence[Piece]) -> Columns:
    """Return the inner products of g_t and m_t, and their norms, in the momentum's dtype."""
    exp_avgs = [piece.exp_avg for piece in pieces]
    grads = [_used_grad(piece, batch.groups[piece.layer]) for piece in pieces]
    products = [torch.dot(*pair) for pair in zip(grads, exp_avgs, strict=True)]
    found = {"grad_momentum": torch.stack(products), "momentum_square": norms(exp_avgs)}
    is_changed = any(map(_decays_gradient, batch.groups))  # otherwise its norm is known
    return (found | {"used_grad_square": norms(grads)}) if is_changed else found


def _measure_update(batch: LayerBatch, pieces: Sequence[Piece]) -> Columns:
    """Return the sums of s_t, and the norms of the updates, decoupled decay included."""
    scales = [batch.scales[piece.layer] for piece in pieces]
    sums = torch.stack([piece.exp_avg_var.sum() for piece in pieces])
    denominators = step_denominators(list(torch._foreach_sqrt([piece.denominator_var for piece in pieces])), scales)
    updates = list(torch._foreach_div([piece.exp_avg for piece in pieces], denominators))
    torch._foreach_mul_(updates, [scale.lr / scale.bias_correction1 for scale in scales])
    if any(scale.largest_update < torch.inf for scale in scales):
        for update, scale in zip(updates, scales, strict=True):
            update.clamp_(-scale.largest_update, scale.largest_update)
    if any(scale.decay for scale in scales):
        # theta_t = (1 - a) theta_{t-1} - u, so theta_{t-1} - theta_t = (u + a theta_t) / (1 - a)
        thetas = [piece.param.to(piece.exp_avg.dtype) for piece in pieces]
        torch._foreach_add_(updates, torch._foreach_mul(thetas, [scale.decay for scale in scales]))
        torch._foreach_div_(updates, [1 - scale.decay for scale in scales])
    return {"exp_avg_var": sums, "update_square": torch.stack(torch._foreach_norm(updates))}


def _look_back(batch: LayerBatch, sums: Columns) -> Columns:
    """Return the sums of the momentum before the step from those of m_t and g_t; 0 where there was none.

    m_{t-1} is (m_t - (1 - beta1) g_t) / beta1.
    """
    beta1 = _find_beta1(batch)
    weight = 1 - beta1
    product, exp_avg_square = sums["grad_momentum"], sums["momentum_square"]
    grad_square = sums.get("used_grad_square", sums["grad_square"])
    grad_momentum = (product - weight * grad_square) / beta1
    momentum_square = (exp_avg_square - 2 * weight * product + weight.square() * grad_square) / beta1.square()
    has_momentum = (torch.tensor(batch.steps) > 1) & (momentum_square > MOMENTUM_ROUNDING * exp_avg_square)
    return {
        "grad_momentum": grad_momentum.where(has_momentum, 0.0),
        "momentum_square": momentum_square.where(has_momentum, 0.0),
        "used_grad_square": grad_square.where(has_momentum, 0.0),
    }


def _find_beta1(batch: LayerBatch) -> Tensor:
    return torch.tensor([float(as_number(group["betas"][0])) for group in batch.groups], dtype=torch.float64)


def _used_grad(piece: Piece, group: dict[str, Any]) -> Tensor:
    """Return the gradient as the optimizer's momentum has taken it up, in the momentum's dtype."""
    grad = piece.grad.to(piece.exp_avg.dtype)
    if group.get("maximize"):
        grad = -grad
    if _decays_gradient(group):
        # The weight before the step would be exact; the step is small beside it, and the decay beside the gradient.
        grad = grad.add(piece.param.to(grad.dtype), alpha=as_number(group["weight_decay"]))
    return grad


def _decays_gradient(group: dict[str, Any]) -> bool:
    """True if weight decay is added to the gradient."""
    return bool(group.get("weight_decay")) and not group.get("weight_decouple", True)
