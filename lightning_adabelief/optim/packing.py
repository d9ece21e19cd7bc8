r"""Averages in 16 and in 8 bits: each as one tensor of bytes, blocks of codes with a scale for every block.

A row is what belongs to one index of a parameter's first dimension; a parameter of one dimension is a single row.
So the shards of a parameter that is split by that dimension are coded as the whole is. The elements of a row,
in their logical order, are cut into blocks of 128, of which the last may be shorter. The packed average has the shape
(rows, bytes of a row), and a row of it holds::

    the codes of all its elements     1 or 2 bytes each, then zeros up to a multiple of 4 bytes
    the scales of all its blocks      float32

With M a block's scale, q a code and Q the largest code, the numbers are

.. math:: m_t = M\, q |q| / Q^2, \quad s_t = M\, (q / Q)^4

- m_t: q is signed (int8, int16; Q is 127, 32767), to the nearest; M is the largest magnitude in the block.
- s_t: q is unsigned (Q is 255, 65535), rounded stochastically between the two codes around s_t, for from step to step
  it changes by a thousandth, which rounding to nearest would lose. M is the largest s_t in the block.
- the largest s_t so far (amsgrad): as s_t, but to the nearest, and M is the next power of two: then what is stored
  again without change stays as it was.

Zeros are exact, and an s_t above 0 has a code of at least 1, for the step divides by its root: beside larger ones in
its block it is at least M / Q^4. A block in which a number is not finite reads as NaN.

Packed are parameters in float32, bfloat16 and float16 of at least 4,096 elements in rows of at least 64; the averages
of others stay in float32. The study behind these choices: ``benchmarks/results/state_bits.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from lightning_adabelief.optim.low_precision import mix_bits
from lightning_adabelief.optim.scaling import Scalar
from lightning_adabelief.optim.shards import to_local

BLOCK = 128
"""The elements that share a scale."""

MIN_ELEMENTS = 4096
"""The elements of the smallest parameter whose averages are packed."""

MIN_ROW = 64
"""The elements of the shortest row that is packed: in shorter ones the scales would take too large a share."""

MOMENTUM, VARIANCE, MAXIMUM = "exp_avg", "exp_avg_var", "max_exp_avg_var"
"""The names of the averages in a parameter's state, each of which has a code of its own."""

PACKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of parameters whose averages can be packed: those whose arithmetic is in float32."""


def is_packed(average: Tensor) -> bool:
    """True if an average is packed, False if it is in a floating-point dtype."""
    return average.dtype is torch.uint8


def find_dtype(average: Tensor) -> torch.dtype:
    """Return the floating-point dtype that an average is computed in."""
    return torch.float32 if is_packed(average) else average.dtype


def can_pack(param: Tensor) -> bool:
    """True if the averages of a parameter can be packed: large enough, and sharded, if at all, by dimension 0."""
    if param.dtype not in PACKED_DTYPES or param.numel() < MIN_ELEMENTS:
        return False
    if _count_row(param.shape) < MIN_ROW:
        return False
    return _is_split_by_rows(param)


def find_packed_shape(shape: torch.Size | Sequence[int], bits: int) -> tuple[int, int]:
    """Return the shape of a packed average: rows, and bytes of a row.

    Args:
        shape: The parameter's shape.
        bits: Of a code, 8 or 16.
    """
    return _find_packed_shape(tuple(shape), bits)


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


def unpack(packed: Tensor, shape: torch.Size | Sequence[int], name: str) -> Tensor:
    """Return the numbers of a packed average.

    Args:
        packed: The packed average, a plain tensor.
        shape: The parameter's shape.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.

    Returns:
        A new float32 tensor of that shape.
    """
    row = _count_row(shape)
    code_bytes = 2 if packed.shape[1] >= 2 * row else 1
    if name == MOMENTUM:
        dtype, largest = (torch.int8, 127) if code_bytes == 1 else (torch.int16, 32767)
        codes = packed[:, : code_bytes * row].view(dtype).float()
        fractions = codes * codes.abs() / largest**2
    else:
        codes = packed[:, : code_bytes * row]
        if code_bytes == 2:  # torch computes little with unsigned integers of 16 bits
            codes = codes.view(torch.int16).int() & 0xFFFF
        fractions = (codes.float() / (256**code_bytes - 1)).square().square()
    scales = packed[:, _pad_to_4(code_bytes * row) :].view(torch.float32)
    return (_cut_into_blocks(fractions) * scales[:, :, None]).flatten(1)[:, :row].reshape(tuple(shape))


def pack(values: Tensor, packed: Tensor, name: str, key: Scalar = 0, skip: Tensor | None = None) -> None:
    """Code an average, in place on ``packed``.

    Args:
        values: The average in float32, of the parameter's shape.
        packed: Its packed tensor, a plain one.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        key: That of the step's stochastic rounding (:func:`~lightning_adabelief.optim.low_precision.make_keys`), for
            ``"exp_avg_var"``. Element i draws by ``mix_bits(i + key)``, of which its last 8 bits are left out.
        skip: A bool in a 0-dim tensor: if True, nothing changes. ``None`` for False.
    """
    row = _count_row(values.shape)
    code_bytes = 2 if packed.shape[1] >= 2 * row else 1
    rows = values.reshape(len(packed), row)
    blocks = _cut_into_blocks(rows)
    largest = blocks.abs().amax(2)  # NaN where there is one
    if name == MAXIMUM:
        largest = _round_to_power_of_two(largest)
    scales = largest.masked_fill(~largest.isfinite(), math.nan)
    divisors = largest.where(largest.isfinite() & (largest > 0), math.inf)  # the codes are 0 then
    fractions = blocks / divisors[:, :, None]
    fractions = fractions.masked_fill(~largest.isfinite()[:, :, None], 0.0).flatten(1)[:, :row]
    if name == MOMENTUM:
        codes = _code_squares(fractions, 127 if code_bytes == 1 else 32767)
    else:
        draw = _draw_numbers(fractions, key) if name == VARIANCE else 0.5
        codes = _code_fourth_powers(fractions, 256**code_bytes - 1, draw)
    code_dtype = torch.uint8 if code_bytes == 1 else torch.int16  # the last 8 or 16 bits are kept
    as_bytes = (codes & (256**code_bytes - 1)).to(code_dtype).view(torch.uint8)
    padding = _pad_to_4(as_bytes.shape[1]) - as_bytes.shape[1]
    as_bytes = torch.nn.functional.pad(as_bytes, (0, padding))
    coded = torch.cat([as_bytes, scales.contiguous().view(torch.uint8)], dim=1)
    packed.copy_(coded if skip is None else torch.where(skip, packed, coded))


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


@lru_cache(maxsize=4096)
def _find_packed_shape(shape: tuple[int, ...], bits: int) -> tuple[int, int]:
    row = _count_row(shape)
    scales = -(-row // BLOCK)
    return (shape[0] if len(shape) > 1 else 1), _pad_to_4(row * bits // 8) + 4 * scales


def _count_row(shape: Sequence[int]) -> int:
    """Return the number of elements in a row of a parameter."""
    return math.prod(shape[1:] if len(shape) > 1 else shape)


def _pad_to_4(size: int) -> int:
    return -(-size // 4) * 4


def _cut_into_blocks(rows: Tensor) -> Tensor:
    """Return (rows, elements) as (rows, blocks, 128), the last block filled up with zeros."""
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))


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


def _round_to_power_of_two(numbers: Tensor) -> Tensor:
    """Return the next power of two of each number >= 0; 0 stays 0, infinity and NaN what they are."""
    bits = numbers.contiguous().view(torch.int32)
    return ((bits + 0x7FFFFF) & 0x7F800000).view(torch.float32).where(numbers.isfinite(), numbers)


def _code_squares(fractions: Tensor, largest: int) -> Tensor:
    """Return the signed codes q whose q |q| / largest^2 are nearest to numbers in [-1, 1], as int32."""
    # From (q - 1)^2 to q^2 the middle is (q - 1/2)^2 + 1/4.
    sizes = (fractions.abs() * largest**2 - 0.25).clamp_(min=0).sqrt_().add_(0.5).floor_()
    return (sizes * fractions.sign()).int()


def _code_fourth_powers(fractions: Tensor, largest: int, draw: Tensor | float) -> Tensor:
    """Return the codes q of numbers in [0, 1], of which (q / largest)^4 is nearly one, as int32.

    Args:
        fractions: The numbers.
        largest: The largest code.
        draw: Numbers in [0, 1) like ``fractions``: a code is rounded up where the number's distance from the code
            below exceeds this share of the distance of the two codes.
    """
    exact = fractions.sqrt().sqrt_().mul_(largest)
    below = exact.floor().clamp_(max=largest - 1)
    # x^4 - k^4 = (x - k)(x + k)(x^2 + k^2), which loses no digits.
    distance = (exact - below) * (exact + below) * (exact.square() + below.square())
    spacing = (2 * below + 1) * (below.square() + (below + 1).square())
    codes = below + (distance > draw * spacing)
    return codes.clamp_(min=1).where(fractions > 0, 0.0).int()


def _draw_numbers(fractions: Tensor, key: Scalar) -> Tensor:
    """Return a random number in [0, 1) for each element, which follows from the key and the element's place."""
    places = torch.arange(fractions.numel(), device=fractions.device).view(fractions.shape)
    drawn = mix_bits(places + (key.to(fractions.device) if isinstance(key, Tensor) else key) & 0xFFFFFFFF)
    return (drawn >> 8).float() * 2.0**-24
