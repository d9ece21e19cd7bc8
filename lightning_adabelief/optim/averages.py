"""The averages of a parameter as its state holds them: in 32, 16 or 8 bits, whole or sharded.

In 16 bits an average is a bfloat16, rounded stochastically: from step to step s_t changes by a thousandth, which
rounding to nearest would lose. The largest s_t so far (amsgrad) is rounded to the nearest, so that what is stored again
without change stays as it was. In 8 bits an average is packed (:mod:`lightning_adabelief.optim.packing`).

Parameters of less than 4,096 elements, and for 8 bits those with rows of less than 64, keep their averages in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lightning_adabelief.optim.low_precision import draw_words, find_places, round_to_bfloat16
from lightning_adabelief.optim.packing import (
    BLOCK,
    MAXIMUM,
    MOMENTUM,
    count_row,
    find_packed_shape,
    is_packed,
    pack,
    read_scales,
    unpack,
)
from lightning_adabelief.optim.scaling import Scalar
from lightning_adabelief.optim.shards import to_local

MIN_ELEMENTS = 4096
"""The elements of the smallest parameter whose averages are kept in less than 32 bits."""

MIN_ROW = 64
"""The elements of the shortest row that is packed: in shorter ones the scales would take too large a share."""

CODED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of parameters whose averages can be kept in less than 32 bits: those whose arithmetic is in float32."""


def is_coded(average: Tensor) -> bool:
    """True if an average is kept in 16 or 8 bits, False if in the dtype of its arithmetic."""
    return average.dtype is torch.uint8 or average.dtype is torch.bfloat16


def find_dtype(average: Tensor) -> torch.dtype:
    """Return the floating-point dtype that an average is computed in."""
    return torch.float32 if is_coded(average) else average.dtype


def find_state_bits(param: Tensor, bits: int) -> int:
    """Return the bits that the averages of a parameter are kept in.

    Args:
        param: The parameter.
        bits: The ``state_bits`` of its group.

    Returns:
        ``bits``, or 32 if the parameter is too small, of another dtype than those that can be, or for 8 bits sharded
        otherwise than by dimension 0.
    """
    if bits == 32 or param.dtype not in CODED_DTYPES or param.numel() < MIN_ELEMENTS:
        return 32
    if bits == 8 and not (count_row(param.shape) >= MIN_ROW and _is_split_by_rows(param)):
        return 32
    return bits


def read_average(stored: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """Return the numbers of an average.

    Args:
        stored: The average, a plain tensor.
        shape: The parameter's shape.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.

    Returns:
        ``stored`` itself if it is in the dtype of its arithmetic; else a new float32 tensor of that shape.
    """
    if is_packed(stored):
        return unpack(stored, shape, name)
    return stored.float() if is_coded(stored) else stored


def write_average(values: Tensor, stored: Tensor, name: str, key: Scalar = 0, skip: Tensor | None = None) -> None:
    """Store an average that is kept in 16 or 8 bits, in place on ``stored``.

    Args:
        values: The average in float32, of the parameter's shape.
        stored: Its tensor, a plain one.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        key: That of the step's stochastic rounding (:func:`~lightning_adabelief.optim.low_precision.make_keys`).
        skip: A bool in a 0-dim tensor: if True, nothing changes. ``None`` for False.
    """
    if is_packed(stored):
        pack(values, stored, name, key, skip)
        return
    draw: Tensor | int = 0x8000
    if name != MAXIMUM:
        words = draw_words(find_places(stored), key)
        draw = (words & 0xFFFF if name == MOMENTUM else words >> 16).int()
    rounded = stored if skip is None else torch.empty_like(stored)
    round_to_bfloat16(values, rounded, draw)
    if skip is not None:
        stored.copy_(torch.where(skip, stored, rounded))


def fits(value: Tensor, param: Tensor) -> bool:
    """True if an average can be a parameter's: of its shape, or packed and split over processes as it is.

    Args:
        value: The average.
        param: The parameter, of any dtype.
    """
    if not is_packed(value):
        return value.shape == param.shape
    if param.is_complex() or param.numel() < MIN_ELEMENTS or count_row(param.shape) < MIN_ROW:
        return False
    shapes = (value.shape, param.shape), (to_local(value).shape, to_local(param).shape)
    return all(packed == find_packed_shape(shape) for packed, shape in shapes)


def make_average(param: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Make an average whose numbers are all 0.

    Args:
        param: The parameter; its average is laid out and sharded as it is.
        bits: Of :func:`find_state_bits`.
        dtype: That of the average in 32 bits.
    """
    if bits == 8:
        local = torch.zeros(find_packed_shape(to_local(param).shape), dtype=torch.uint8, device=param.device)
        return _shard_like(param, local, find_packed_shape(param.shape))
    dtype = torch.bfloat16 if bits == 16 else dtype
    return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)


def unpack_average(value: Tensor, param: Tensor, name: str) -> Tensor:
    """Return an average as a tensor of its parameter's shape, in the dtype of its arithmetic.

    Args:
        value: The average, sharded as the parameter is.
        param: The parameter.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.

    Returns:
        ``value`` itself where it is so already; else a new float32 tensor, sharded as the parameter is.
    """
    if is_packed(value):
        return _shard_like(param, unpack(to_local(value), to_local(param).shape, name), param.shape)
    return read_average(value, param.shape, name)


def take_entries(value: Tensor, param: Tensor, name: str, indices: Tensor) -> Tensor:
    """Return some numbers of an average, without unpacking the others.

    Args:
        value: The average, a plain tensor.
        param: The parameter; of a complex one, an average is one of real numbers.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        indices: Positions of elements, counted in their logical order; int64, of one dimension.

    Returns:
        A tensor of that length, in the dtype of the average's arithmetic.
    """
    if not is_packed(value):
        entries = value.view(-1).index_select(0, indices) if value.is_contiguous() else value.take(indices)
        return read_average(entries, entries.shape, name)
    rows, columns = indices // count_row(param.shape), indices % count_row(param.shape)
    entries = value.new_zeros(find_packed_shape(indices.shape))  # of scale 1
    entries[0, : len(indices)] = value.view(-1).index_select(0, rows * value.shape[1] + columns)
    read_scales(entries, indices.shape).fill_(1.0)
    return unpack(entries, indices.shape, name) * read_scales(value, param.shape)[rows, columns // BLOCK]


def convert_average(value: Tensor, param: Tensor, bits: int, name: str, dtype: torch.dtype) -> Tensor:
    """Return an average as a parameter's state is to hold it, on the parameter's device.

    Args:
        value: The average, sharded as the parameter is.
        param: The parameter.
        bits: The ``state_bits`` of its group.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        dtype: That of the average in 32 bits.

    Returns:
        ``value`` itself where it is so already, in 32 or 8 bits.
    """
    bits = find_state_bits(param, bits)
    if bits == 8 and is_packed(value) and value.shape == find_packed_shape(param.shape):
        return value.to(param.device)
    value = unpack_average(value, param, name)
    if bits < 32:
        packed = make_average(param, bits, dtype)
        write_average(to_local(value).to(param.device, torch.float32), to_local(packed), name)
        return packed
    return value.to(param.device, dtype)


def _is_split_by_rows(param: Tensor) -> bool:
    """True if each process holds whole rows of a parameter, in the way that a tensor of other rows would be split."""
    placements = getattr(param, "placements", None)
    if placements is None:
        return True
    from torch.distributed.tensor import Replicate, Shard

    if param.dim() < 2:
        return all(isinstance(placement, Replicate) for placement in placements)
    return all(isinstance(p, Replicate) or (type(p) is Shard and p.dim == 0) for p in placements)


def _shard_like(param: Tensor, local: Tensor, shape: Sequence[int]) -> Tensor:
    """Return this process's part of a tensor as a DTensor that is sharded as a parameter is, if that is one."""
    if not hasattr(param, "placements"):
        return local
    from torch.distributed.tensor import DTensor

    stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    mesh, placements = cast(Any, param).device_mesh, cast(Any, param).placements
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride)
