"""Layers cut into pieces, so that many sums are taken in one pass over memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_adabelief.beliefs.layers import BATCH_WEIGHTS, LayerBatch
from lightning_adabelief.optim.averages import read_average
from lightning_adabelief.optim.packing import count_row, is_packed, unpack
from lightning_adabelief.optim.shards import full_tensor

CACHED_WEIGHTS = 1 << 19
"""The number of weights worked on at a time on a CPU, so that they and intermediate results stay in its cache."""


class Piece(NamedTuple):
    """Weights of a layer, all or some: flat tensors of one size, of real numbers.

    Attributes:
        layer: The layer's position in its batch.
        param: The weights.
        grad: Their gradients.
        exp_avg: m_t, uncorrected.
        exp_avg_var: s_t, uncorrected.
        denominator_var: The uncorrected s_t that the step is divided by.
    """

    layer: int
    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    exp_avg_var: Tensor
    denominator_var: Tensor


def cut_into_pieces(batch: LayerBatch) -> Iterator[list[Piece]]:
    """Cut layers into pieces, and yield as many at a time as a cache holds.

    Args:
        batch: The layers. DTensors are gathered, and then every rank must call.
    """
    limit = CACHED_WEIGHTS if batch.params[0].device.type == "cpu" else BATCH_WEIGHTS
    pieces: list[Piece] = []
    room = limit
    for layer, (param, averages) in enumerate(zip(batch.params, batch.averages, strict=True)):
        assert param.grad is not None
        tensors = {"param": _read_real(param), "grad": _read_real(param.grad), **averages}
        cut = _cut_rows if any(map(is_packed, averages.values())) else _cut_flat
        for theta, grad, *own in cut(tensors, limit):
            values = {name: read_average(each, each.shape, name) for name, each in zip(averages, own, strict=True)}
            if pieces and theta.numel() > room:
                yield pieces
                pieces, room = [], limit
            pieces.append(Piece(layer, theta, grad, *batch.read_beliefs(layer, values)))
            room -= theta.numel()
    yield pieces


def _read_real(tensor: Tensor) -> Tensor:
    """Return a parameter or gradient as a plain tensor of real numbers."""
    tensor = full_tensor(tensor.detach())
    return torch.view_as_real(tensor.resolve_conj()) if torch.is_complex(tensor) else tensor


def _cut_flat(tensors: dict[str, Tensor], limit: int) -> Iterable[tuple[Tensor, ...]]:
    """Cut tensors of one shape into flat pieces of at most ``limit`` numbers, all tensors alike."""
    first, *_ = columns = list(tensors.values())
    if first.numel() <= limit and all(map(Tensor.is_contiguous, columns)):
        return [tuple(map(Tensor.flatten, columns))]  # quick, for networks of thousands of small tensors
    # In the order of memory, flattening copies nothing, whatever the layout (channels last, say).
    strides = first.stride()
    memory_order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    return zip(*(column.permute(memory_order).reshape(-1).split(limit) for column in columns), strict=True)


def _cut_rows(tensors: dict[str, Tensor], limit: int) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors, of which the averages are packed, into whole rows, and unpack and flatten each piece."""
    rows_at_once = max(limit // count_row(tensors["param"].shape), 1)
    columns = [(tensor if tensor.dim() > 1 else tensor[None]).split(rows_at_once) for tensor in tensors.values()]
    for rows in zip(*columns, strict=True):
        shape = rows[0].shape
        named = zip(tensors, rows, strict=True)
        yield tuple((unpack(each, shape, name) if is_packed(each) else each).flatten() for name, each in named)
