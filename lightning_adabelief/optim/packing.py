r"""Averages in 8 bits: each as one tensor of bytes, blocks of codes with a scale for every block.

A row is what belongs to one index of a parameter's first dimension; a parameter of one dimension is a single row.
So the shards of a parameter that is split by that dimension are coded as the whole is. The elements of a row,
in their logical order, are cut into blocks of 128, of which the last may be shorter. The packed average has the shape
(rows, bytes of a row), and a row of it holds::

    the codes of all its elements     1 byte each, then zeros up to a multiple of 4 bytes
    the scales of all its blocks      float32

The code is a logarithm of 1 + x, linear between powers of two, made of float32's own bits: it takes no root, and is
the same integer in every implementation. With M a block's scale, q a code, Q the largest and b the bits of its
fraction,

.. math:: E(q) = (1 + f)\, 2^e - 1 \text{ where } q = 2^b (e + f), \quad
    m_t = \pm M\, E(|q|) / E(Q), \quad s_t = M\, E(q) / E(Q)

- m_t: q is signed (int8; Q is 127, b is 5), to the nearest; M is the largest magnitude in the block.
- s_t: q is unsigned (Q is 255, b is 4), rounded stochastically between the two codes around s_t, for from step to step
  it changes by a thousandth, which rounding to nearest would lose. M is the largest s_t in the block.
- the largest s_t so far (amsgrad): as s_t, but to the nearest, and M is the next power of two: then what is stored
  again without change stays as it was. (Where the block's largest is rounded to just below M / 2, M is halved, once.)

Zeros are exact, and an s_t above 0 has a code of at least 1, for the step divides by its root: beside larger ones in
its block it is at least M E(1) / E(Q), a millionth of M. A scale above 0 is at least 2^-108. A block in which a number
is not finite reads as NaN.

The study behind these choices: ``benchmarks/results/state_bits.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lightning_adabelief.optim.low_precision import draw_words
from lightning_adabelief.optim.scaling import Scalar

BLOCK = 128
"""The elements that share a scale."""

CODED_AT_ONCE = 1 << 16
"""The elements that are coded at a time on a CPU, so that intermediate results stay in its cache."""

MOMENTUM, VARIANCE, MAXIMUM = "exp_avg", "exp_avg_var", "max_exp_avg_var"
"""The names of the averages in a parameter's state, each of which has a code of its own."""


_FRACTION_BITS, _LARGEST_CODE = {MOMENTUM: 5, VARIANCE: 4, MAXIMUM: 4}, {MOMENTUM: 127, VARIANCE: 255, MAXIMUM: 255}
_SMALLEST_SCALE = 2.0**-108  # of a smaller one the inverse would be too large for a float32
_ONE = 0x3F800000  # the bits of 1


def is_packed(average: Tensor) -> bool:
    """True if an average is packed, False if it is in a floating-point dtype."""
    return average.dtype is torch.uint8


@lru_cache(maxsize=4096)
def find_packed_shape(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of a packed average: rows, and bytes of a row.

    Args:
        shape: The parameter's shape.
    """
    row = count_row(shape)
    return (shape[0] if len(shape) > 1 else 1), _pad_to_4(row) + 4 * -(-row // BLOCK)


def count_row(shape: Sequence[int]) -> int:
    """Return the number of elements in a row of a parameter.

    Args:
        shape: The parameter's.
    """
    return math.prod(shape[1:] if len(shape) > 1 else shape)


def count_blocks(shape: Sequence[int]) -> int:
    """Return the number of blocks of a parameter.

    Args:
        shape: The parameter's.
    """
    return (shape[0] if len(shape) > 1 else 1) * -(-count_row(shape) // BLOCK)


def read_scales(packed: Tensor, shape: torch.Size | Sequence[int]) -> Tensor:
    """Return the scales of a packed average; NaN for a block in which a number is not finite.

    Args:
        packed: The packed average, a plain tensor.
        shape: The parameter's shape.

    Returns:
        A float32 view of shape (rows, blocks of a row).
    """
    return packed[:, _pad_to_4(count_row(shape)) :].view(torch.float32)


def unpack(packed: Tensor, shape: torch.Size | Sequence[int], name: str) -> Tensor:
    """Return the numbers of a packed average.

    Args:
        packed: The packed average, a plain tensor.
        shape: The parameter's shape.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.

    Returns:
        A new float32 tensor of that shape.
    """
    row = count_row(shape)
    codes = packed[:, :row]
    if name == MOMENTUM:
        signed = codes.view(torch.int8)
        numbers = _expand(signed.int().abs(), name).copysign_(signed.float())
    else:
        numbers = _expand(codes.int(), name)
    units = read_scales(packed, shape) / _find_largest_number(name)
    return numbers.mul_(units[:, _number_blocks(row, packed.device)]).reshape(tuple(shape))


def pack(values: Tensor, packed: Tensor, name: str, key: Scalar = 0, skip: Tensor | None = None) -> None:
    """Code an average, in place on ``packed``.

    Args:
        values: The average in float32, of the parameter's shape.
        packed: Its packed tensor, a plain one.
        name: ``"exp_avg"``, ``"exp_avg_var"`` or ``"max_exp_avg_var"``.
        key: That of the step's stochastic rounding (:func:`~lightning_adabelief.optim.low_precision.make_keys`), for
            ``"exp_avg_var"``.
        skip: A bool in a 0-dim tensor: if True, nothing changes. ``None`` for False.
    """
    row = count_row(values.shape)
    rows_at_once = len(packed)
    if values.is_cpu and not torch.compiler.is_compiling():
        rows_at_once = max(CODED_AT_ONCE // row, 1)
    pieces = zip(values.reshape(len(packed), row).split(rows_at_once), packed.split(rows_at_once), strict=True)
    for index, (rows, packed_rows) in enumerate(pieces):
        coded = _code_rows(rows, name, key + index * rows_at_once * row)
        packed_rows.copy_(coded if skip is None else torch.where(skip, packed_rows, coded))


def _code_rows(rows: Tensor, name: str, key: Scalar) -> Tensor:
    """Return the bytes of some rows of an average, as :func:`pack` stores them.

    Args:
        rows: Of shape (rows, elements of a row).
        name: The average's.
        key: That of the first of these elements.
    """
    blocks = _cut_into_blocks(rows)
    largest = blocks.abs().amax(2)  # NaN where there is one
    if name == MAXIMUM:
        largest = _round_to_power_of_two(largest)
    is_finite = largest.isfinite()
    scales = largest.masked_fill(~is_finite, math.nan)
    scales = torch.where(scales > 0, scales.clamp(min=_SMALLEST_SCALE), scales)
    block_of = _number_blocks(rows.shape[1], rows.device)
    numbers = torch.where(is_finite[:, block_of], rows, 0.0)
    multiples = numbers.abs() * _find_factors(scales, name)[:, block_of]
    shift = 23 - _FRACTION_BITS[name]
    draw: Tensor | int = 1 << (shift - 1)
    if name == VARIANCE:
        places = torch.arange(rows.numel(), device=rows.device).view(rows.shape)
        draw = draw_words(places, key) >> (32 - shift)
    codes = ((multiples + 1.0).view(torch.int32) - _ONE + draw) >> shift
    if name == MOMENTUM:
        codes = torch.where(numbers < 0, -codes, codes)
    else:
        codes = codes.clamp_(min=1).masked_fill_(numbers == 0, 0)
    as_bytes = (codes & 0xFF).to(torch.uint8)
    padding = as_bytes.new_zeros(len(rows), _pad_to_4(as_bytes.shape[1]) - as_bytes.shape[1])
    return torch.cat([as_bytes, padding, scales.view(torch.uint8)], dim=1)


def _find_factors(scales: Tensor, name: str) -> Tensor:
    """Return what numbers are multiplied by before they are coded: E(Q) / M, rounded so that M has no code above Q."""
    largest = _find_largest_number(name)
    # Of a number over a tensor torch would take the inverse, which rounds twice.
    factors = torch.full_like(scales, largest) / scales.where(scales > 0, math.inf)
    is_above = factors * scales > largest
    return (factors.view(torch.int32) - is_above.int()).view(torch.float32)


def _find_largest_number(name: str) -> float:
    """Return E(Q)."""
    exponent, fraction = divmod(_LARGEST_CODE[name], 2 ** _FRACTION_BITS[name])
    return (1 + fraction / 2 ** _FRACTION_BITS[name]) * 2**exponent - 1


def _expand(codes: Tensor, name: str) -> Tensor:
    """Return E(q) of int32 codes that are not negative, in float32."""
    return ((codes << (23 - _FRACTION_BITS[name])) + _ONE).view(torch.float32) - 1.0


def _pad_to_4(size: int) -> int:
    return -(-size // 4) * 4


def _number_blocks(row: int, device: torch.device) -> Tensor:
    """Return the number of the block that each element of a row is in."""
    # By a shift: where Inductor sees a division by 128, it leaves out what is beyond the last whole block (torch 2.14).
    return torch.arange(row, device=device) >> (BLOCK.bit_length() - 1)


def _cut_into_blocks(rows: Tensor) -> Tensor:
    """Return a copy of (rows, elements) as (rows, blocks, 128), the last block filled up with zeros."""
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))


def _round_to_power_of_two(numbers: Tensor) -> Tensor:
    """Return the next power of two of each number >= 0; 0 stays 0, infinity and NaN what they are."""
    bits = numbers.contiguous().view(torch.int32)
    return ((bits + 0x7FFFFF) & 0x7F800000).view(torch.float32).where(numbers.isfinite(), numbers)
