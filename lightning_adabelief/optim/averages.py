"""The averages of a parameter as its state holds them: packed or in floating point, whole or sharded.

Packed (:mod:`lightning_adabelief.optim.packing`) are those of parameters in float32, bfloat16 and float16 of at least
4,096 elements in rows of at least 64; those of others stay in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lightning_adabelief.optim.packing import (
    BLOCK,
    count_code_bits,
    count_row,
    find_packed_shape,
    is_packed,
    pack,
    read_scales,
    unpack,
)
from lightning_adabelief.optim.shards import to_local

MIN_ELEMENTS = 4096
"""The elements of the smallest parameter whose averages are packed."""

MIN_ROW = 64
"""The elements of the shortest row that is packed: in shorter ones the scales would take too large a share."""

PACKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of parameters whose averages can be packed: those whose arithmetic is in float32."""


def find_dtype(average: Tensor) -> torch.dtype:
    """Return the floating-point dtype that an average is computed in."""
    return torch.float32 if is_packed(average) else average.dtype


def can_pack(param: Tensor) -> bool:
    """True if the averages of a parameter can be packed: large enough, and sharded, if at all, by dimension 0."""
    return param.dtype in PACKED_DTYPES and _is_large(param) and _is_split_by_rows(param)


def fits_packed(value: Tensor, param: Tensor) -> bool:
    """True if a packed average can be a parameter's: of its shape, and split over processes as it is.

    Args:
        value: The packed average, of either number of bits.
        param: The parameter, of any dtype.
    """
    if param.is_complex() or not _is_large(param):
        return False
    shapes = (value.shape, param.shape), (to_local(value).shape, to_local(param).shape)
    return any(all(packed == find_packed_shape(shape, bits) for packed, shape in shapes) for bits in (8, 16))


def make_packed(param: Tensor, bits: int) -> Tensor:
    """Make a packed average whose numbers are all 0.

    Args:
        param: The parameter, one that :func:`can_pack` is True of; its average is sharded as it is.
        bits: Of a code, 8 or 16.

    Returns:
        A uint8 tensor on the parameter's device.
    """
    local = torch.zeros(find_packed_shape(to_local(param).shape, bits), dtype=torch.uint8, device=param.device)
    return _shard_like(param, local, find_packed_shape(param.shape, bits))


def unpack_average(value: Tensor, param: Tensor, name: str) -> Tensor:
    """Return an average as a floating-point tensor of its parameter's shape.

    Args:
        value: The average, packed or not; sharded as the parameter is.
        param: The parameter.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.

    Returns:
        ``value`` itself where it is so already; else a new float32 tensor, sharded as the parameter is.
    """
    if not is_packed(value):
        return value
    return _shard_like(param, unpack(to_local(value), to_local(param).shape, name), param.shape)


def take_entries(value: Tensor, param: Tensor, name: str, indices: Tensor) -> Tensor:
    """Return some numbers of an average, without unpacking the others.

    Args:
        value: The average, packed or not, whole.
        param: The parameter; of a complex one, an average is one of real numbers.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        indices: Positions of elements, counted in their logical order; int64, at least 8, of one dimension.

    Returns:
        A floating-point tensor of that length.
    """
    if not is_packed(value):
        return value.view(-1).index_select(0, indices) if value.is_contiguous() else value.take(indices)
    row = count_row(param.shape)
    code_bytes = count_code_bits(value, param.shape) // 8
    rows, columns = indices // row, indices % row
    flat_codes = value.view(torch.uint8 if code_bytes == 1 else torch.int16).view(-1)
    codes = flat_codes.index_select(0, rows * (value.shape[1] // code_bytes) + columns)
    taken = value.new_zeros(find_packed_shape(indices.shape, 8 * code_bytes))
    taken[0, : code_bytes * len(indices)] = codes.view(torch.uint8)
    read_scales(taken, indices.shape).fill_(1.0)
    return unpack(taken, indices.shape, name) * read_scales(value, param.shape)[rows, columns // BLOCK]


def convert_average(value: Tensor, param: Tensor, bits: int, name: str, dtype: torch.dtype) -> Tensor:
    """Return an average as a parameter's state is to hold it, on the parameter's device.

    Args:
        value: The average, packed or not; sharded as the parameter is.
        param: The parameter.
        bits: 8 or 16 to pack it, if the parameter's can be; 32 for a floating-point tensor.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        dtype: That of the floating-point tensor.

    Returns:
        ``value`` itself where it is so already.
    """
    to_pack = bits < 32 and can_pack(param)
    if to_pack and is_packed(value) and value.shape == find_packed_shape(param.shape, bits):
        return value.to(param.device)
    value = unpack_average(value, param, name)
    if not to_pack:
        return value.to(param.device, dtype)
    packed = make_packed(param, bits)
    pack(to_local(value).to(param.device, torch.float32), to_local(packed), name)
    return packed


def _is_large(param: Tensor) -> bool:
    return param.numel() >= MIN_ELEMENTS and count_row(param.shape) >= MIN_ROW


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
