"""The Triton kernel of the fused CUDA step for averages in 16 and 8 bits: ``packing.py``, on the device.

A program takes some whole blocks of 128 elements that share a scale, so that it finds their new scales by itself.
Codes and scales of a row lie in one stretch of bytes, a multiple of 4: it is counted in words of 4 bytes.
"""
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from lightning_adabelief.optim import packing
from lightning_adabelief.optim.fused.cuda_kernels import (
    COLUMNS,
    RULE_ARGUMENTS,
    SCALES,
    load_gradient,
    load_pointer,
    step,
)
from lightning_adabelief.optim.fused.cuda_low_precision import load_weight, mix_bits, store_weight

BLOCK = tl.constexpr(packing.BLOCK)
"""The elements that share a scale."""

_INFINITY = tl.constexpr(0x7F800000)
_NAN = tl.constexpr(0x7FC00000)
_SMALLEST_NORMAL = tl.constexpr(2.0**-126)
_SIZE = tl.constexpr(0x7FFFFFFF)  # all bits of a float32 but the sign


@triton.jit(do_not_specialize=RULE_ARGUMENTS)
def packed_rule(
    table,
    owners,
    scales,
    grad_scale,
    found_inf,
    sign: tl.int64,
    decay: tl.int64,
    one_minus_beta1: tl.int64,
    beta2: tl.int64,
    residual_weight: tl.int64,
    eps: tl.int64,
    AMSGRAD: tl.constexpr,
    BOUNDED: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    CODE_BYTES: tl.constexpr,
    MISSING: tl.constexpr,
    KEPT: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Take the step on BLOCKS blocks of the tensor whose row ``owners`` holds.

    As ``rule``, but with averages in codes of CODE_BYTES; ALIGNED promises rows of a multiple of 8 elements.
    """
    SIGNED: tl.constexpr = tl.int8 if CODE_BYTES == 1 else tl.int16
    UNSIGNED: tl.constexpr = tl.uint8 if CODE_BYTES == 1 else tl.uint16
    LARGEST_SIGNED: tl.constexpr = 127 if CODE_BYTES == 1 else 32767
    LARGEST: tl.constexpr = 255 if CODE_BYTES == 1 else 65535

    i = tl.load(owners + tl.program_id(0)).to(tl.int64)
    row = table + i * COLUMNS
    numel, length = tl.load(row + 6), tl.load(row + 11)
    if ALIGNED:
        length = tl.multiple_of(length, 8)
    blocks_a_row = ((length + (BLOCK - 1)) // BLOCK).to(tl.uint32)
    code_words = (length * CODE_BYTES + 3) // 4
    words = code_words + blocks_a_row
    codes_a_row = tl.multiple_of(words * (4 // CODE_BYTES), 4 // CODE_BYTES)

    block = ((tl.program_id(0) - tl.load(row + 7)) * BLOCKS + tl.arange(0, BLOCKS)).to(tl.uint32)
    index = block // blocks_a_row  # of the row of the parameter
    block -= index * blocks_a_row
    index = index.to(tl.int64)
    start_in_row = block.to(tl.int64) * BLOCK
    start = index * length + start_in_row
    left = tl.where(start < numel, tl.minimum(length - start_in_row, BLOCK), 0).to(tl.int32)
    if found_inf is not None:
        left = tl.where(tl.load(found_inf) == 0, left, 0)
    if ALIGNED:
        left = tl.multiple_of(left, 8)
    offsets = tl.arange(0, BLOCK)[None, :]
    mask = offsets < left[:, None]
    place = start[:, None] + offsets
    code_place = (index * codes_a_row + start_in_row)[:, None] + offsets
    scale_place = (index * words + code_words + block)[:, None]
    scale_mask = left[:, None] > 0

    theta_at = load_pointer(row, PARAM, ALIGNED) + place
    correction_at = load_pointer(row + 8, tl.int8, ALIGNED) + place
    low_at = load_pointer(row + 9, tl.uint8, ALIGNED) + place
    m_at = load_pointer(row + 2, SIGNED, ALIGNED) + code_place
    s_at = load_pointer(row + 3, UNSIGNED, ALIGNED) + code_place
    max_s_at = load_pointer(row + 4, UNSIGNED, ALIGNED) + code_place
    m_scale_at = load_pointer(row + 2, tl.float32, ALIGNED) + scale_place
    s_scale_at = load_pointer(row + 3, tl.float32, ALIGNED) + scale_place
    max_s_scale_at = load_pointer(row + 4, tl.float32, ALIGNED) + scale_place

    theta = load_weight(theta_at, correction_at, low_at, mask, tl.float32, MISSING, KEPT)
    g = load_gradient(load_pointer(row + 1, GRAD, ALIGNED) + place, mask, grad_scale, GRAD, tl.float32)
    m = _decode_squares(tl.load(m_at, mask=mask), tl.load(m_scale_at, mask=scale_mask), LARGEST_SIGNED)
    s = _decode_fourth_powers(tl.load(s_at, mask=mask), tl.load(s_scale_at, mask=scale_mask), LARGEST)
    max_s = s
    if AMSGRAD:
        max_s_codes, max_s_scales = tl.load(max_s_at, mask=mask), tl.load(max_s_scale_at, mask=scale_mask)
        max_s = _decode_fourth_powers(max_s_codes, max_s_scales, LARGEST)

    scales += i * SCALES
    theta, m, s, max_s = step(
        theta,
        g,
        m,
        s,
        max_s,
        scales,
        sign,
        decay,
        one_minus_beta1,
        beta2,
        residual_weight,
        eps,
        AMSGRAD,
        BOUNDED,
        tl.float32,
    )
    key = (tl.load(scales + 4).to(tl.int64) + place).to(tl.uint32)
    store_weight(theta, theta_at, correction_at, low_at, key, mask, PARAM, MISSING, KEPT)

    new_scales = _find_scales(m, mask, ROUND_UP=False)
    tl.store(m_at, _code_squares(m, new_scales, LARGEST_SIGNED).to(SIGNED), mask=mask)
    tl.store(m_scale_at, new_scales, mask=scale_mask)
    new_scales = _find_scales(s, mask, ROUND_UP=False)
    draw = (mix_bits(key) >> 8).to(tl.float32) * (1.0 / (1 << 24))
    tl.store(s_at, _code_fourth_powers(s, new_scales, draw, LARGEST).to(UNSIGNED), mask=mask)
    tl.store(s_scale_at, new_scales, mask=scale_mask)
    if AMSGRAD:
        new_scales = _find_scales(max_s, mask, ROUND_UP=True)
        tl.store(max_s_at, _code_fourth_powers(max_s, new_scales, 0.5, LARGEST).to(UNSIGNED), mask=mask)
        tl.store(max_s_scale_at, new_scales, mask=scale_mask)


@triton.jit
def _decode_squares(codes, scales, LARGEST: tl.constexpr):
    codes = codes.to(tl.float32)
    return codes * tl.abs(codes) * (1.0 / (LARGEST * LARGEST)) * scales


@triton.jit
def _decode_fourth_powers(codes, scales, LARGEST: tl.constexpr):
    codes = codes.to(tl.float32)
    roots = codes * codes * (1.0 / (LARGEST * LARGEST))
    return roots * roots * scales


@triton.jit
def _find_scales(values, mask, ROUND_UP: tl.constexpr):
    """Return the largest magnitude of each block of (BLOCKS, 128) numbers; NaN where a number is not finite.

    ROUND_UP takes the next power of two instead.
    """
    # Bits of magnitudes are ordered as the magnitudes are, with infinity and NaN above all others.
    bits = tl.where(mask, values.to(tl.int32, bitcast=True) & _SIZE, 0)
    largest = tl.max(bits, axis=1, keep_dims=True)
    if ROUND_UP:
        largest = tl.where(largest < _INFINITY, (largest + 0x7FFFFF) & _INFINITY, largest)
    return tl.where(largest < _INFINITY, largest, _NAN).to(tl.float32, bitcast=True)


@triton.jit
def _code_squares(values, scales, LARGEST: tl.constexpr):
    """Return the signed codes q, as int32, of which scales * q |q| / LARGEST^2 is nearest to the values."""
    factor = tl.where(scales >= _SMALLEST_NORMAL, 1 / tl.maximum(scales, _SMALLEST_NORMAL), 0.0)
    squares = tl.abs(values) * factor * (LARGEST * LARGEST)
    # From (q - 1)^2 to q^2 the middle is (q - 1/2)^2 + 1/4.
    sizes = (tl.sqrt(tl.maximum(squares - 0.25, 0.0)) + 0.5).to(tl.int32)
    return tl.where(values < 0, -sizes, sizes)


@triton.jit
def _code_fourth_powers(values, scales, draw, LARGEST: tl.constexpr):
    """Return the codes q, as int32, of which scales * (q / LARGEST)^4 is near the values; 0 of 0 alone.

    A code is rounded up where the value's distance from the code below exceeds the share ``draw`` of the distance
    of the two codes.
    """
    squares_at_1 = LARGEST * LARGEST / tl.sqrt(tl.maximum(scales, _SMALLEST_NORMAL))
    factor = tl.where(scales >= _SMALLEST_NORMAL, squares_at_1, 0.0)
    # Infinity times a factor of 0 is NaN, of which the maximum makes 0.
    exact = tl.minimum(tl.maximum(tl.sqrt(tl.sqrt(values) * factor), 0.0), LARGEST)
    below = tl.floor(exact)
    # x^4 - k^4 = (x - k)(x + k)(x^2 + k^2), which loses no digits.
    distance = (exact - below) * (exact + below) * (exact * exact + below * below)
    spacing = (2 * below + 1) * (2 * below * below + (2 * below + 1))
    return below.to(tl.int32) + (distance > tl.where(below > 0, draw * spacing, 0.0))
