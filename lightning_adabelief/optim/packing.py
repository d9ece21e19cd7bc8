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
  again without change stays as it was. (Where the block's largest is rounded to just below M / 2, M is halved, once.)

Zeros are exact, and an s_t above 0 has a code of at least 1, for the step divides by its root: beside larger ones in
its block it is at least M / Q^4. A block in which a number is not finite reads as NaN.

The study behind these choices: ``benchmarks/results/state_bits.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lightning_adabelief.optim.low_precision import mix_bits
from lightning_adabelief.optim.scaling import Scalar

BLOCK = 128
"""The elements that share a scale."""

CODED_AT_ONCE = 1 << 16
"""The elements that are coded at a time on a CPU, so that intermediate results stay in its cache."""

MOMENTUM, VARIANCE, MAXIMUM = "exp_avg", "exp_avg_var", "max_exp_avg_var"
"""The names of the averages in a parameter's state, each of which has a code of its own."""


def is_packed(average: Tensor) -> bool:
    """True if an average is packed, False if it is in a floating-point dtype."""
    return average.dtype is torch.uint8


@lru_cache(maxsize=4096)
def find_packed_shape(shape: torch.Size | tuple[int, ...], bits: int) -> tuple[int, int]:
    """Return the shape of a packed average: rows, and bytes of a row.

    Args:
        shape: The parameter's shape.
        bits: Of a code, 8 or 16.
    """
    row = count_row(shape)
    scales = -(-row // BLOCK)
    return (shape[0] if len(shape) > 1 else 1), _pad_to_4(row * bits // 8) + 4 * scales


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


def count_code_bits(packed: Tensor, shape: Sequence[int]) -> int:
    """Return the bits of a code of a packed average.

    Args:
        packed: The packed average.
        shape: The parameter's.
    """
    return 8 * _count_code_bytes(packed, count_row(shape))


def read_scales(packed: Tensor, shape: torch.Size | Sequence[int]) -> Tensor:
    """Return the scales of a packed average; NaN for a block in which a number is not finite.

    Args:
        packed: The packed average, a plain tensor.
        shape: The parameter's shape.

    Returns:
        A float32 view of shape (rows, blocks of a row).
    """
    row = count_row(shape)
    return packed[:, _pad_to_4(_count_code_bytes(packed, row) * row) :].view(torch.float32)


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
    code_bytes = _count_code_bytes(packed, row)
    codes = packed[:, : code_bytes * row]
    if name == MOMENTUM:
        dtype, largest = (torch.int8, 127) if code_bytes == 1 else (torch.int16, 32767)
        numbers = codes.view(dtype).float()
        fractions = numbers * numbers.abs() / largest**2
    else:
        if code_bytes == 2:  # torch computes little with unsigned integers of 16 bits
            codes = codes.view(torch.int16).int() & 0xFFFF
        fractions = (codes.float() / (256**code_bytes - 1)).square_().square_()
    blocks = _cut_into_blocks(fractions).mul_(read_scales(packed, shape)[:, :, None])
    return blocks.flatten(1)[:, :row].reshape(tuple(shape))


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
    row = count_row(values.shape)
    rows_at_once = len(packed)
    if values.is_cpu and not torch.compiler.is_compiling():
        rows_at_once = max(CODED_AT_ONCE // row, 1)
    pieces = zip(values.reshape(len(packed), row).split(rows_at_once), packed.split(rows_at_once), strict=True)
    for index, (rows, packed_rows) in enumerate(pieces):
        coded = _code_rows(rows, _count_code_bytes(packed, row), name, key + index * rows_at_once * row)
        packed_rows.copy_(coded if skip is None else torch.where(skip, packed_rows, coded))


def _code_rows(rows: Tensor, code_bytes: int, name: str, key: Scalar) -> Tensor:
    """Return the bytes of some rows of an average, as :func:`pack` stores them.

    Args:
        rows: Of shape (rows, elements of a row).
        code_bytes: The bytes of a code.
        name: The average's.
        key: That of the first of these elements.
    """
    blocks = _cut_into_blocks(rows)
    largest = blocks.abs().amax(2)  # NaN where there is one
    if name == MAXIMUM:
        largest = _round_to_power_of_two(largest)
    is_finite = largest.isfinite()
    scales = largest.masked_fill(~is_finite, math.nan)
    numbers = blocks.masked_fill(~is_finite[:, :, None], 0.0)
    fractions = numbers / largest.where(is_finite & (largest > 0), math.inf)[:, :, None]
    numbers, fractions = (each.flatten(1)[:, : rows.shape[1]] for each in (numbers, fractions))
    if name == MOMENTUM:
        codes = _code_squares(fractions, 127 if code_bytes == 1 else 32767)
    else:
        draw = _draw_numbers(fractions, key) if name == VARIANCE else 0.5
        codes = _code_fourth_powers(fractions, 256**code_bytes - 1, draw)
        codes = codes.clamp_(min=1).masked_fill_(numbers == 0, 0)
    code_dtype = torch.uint8 if code_bytes == 1 else torch.int16  # the last 8 or 16 bits are kept
    as_bytes = (codes & (256**code_bytes - 1)).to(code_dtype).view(torch.uint8)
    padding = as_bytes.new_zeros(len(rows), _pad_to_4(as_bytes.shape[1]) - as_bytes.shape[1])
    return torch.cat([as_bytes, padding, scales.view(torch.uint8)], dim=1)


def _count_code_bytes(packed: Tensor, row: int) -> int:
    """Return 1 or 2, the bytes of a code in a packed average with so many elements in a row."""
    return 2 if packed.shape[1] >= 2 * row else 1


def _pad_to_4(size: int) -> int:
    return -(-size // 4) * 4


def _cut_into_blocks(rows: Tensor) -> Tensor:
    """Return a copy of (rows, elements) as (rows, blocks, 128), the last block filled up with zeros."""
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))


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
    return (below + (distance > draw * spacing)).int()


def _draw_numbers(fractions: Tensor, key: Scalar) -> Tensor:
    """Return a random number in [0, 1) for each element, which follows from the key and the element's place."""
    places = torch.arange(fractions.numel(), device=fractions.device).view(fractions.shape)
    drawn = mix_bits(places + (key.to(fractions.device) if isinstance(key, Tensor) else key) & 0xFFFFFFFF)
    return (drawn >> 8).float() * 2.0**-24
