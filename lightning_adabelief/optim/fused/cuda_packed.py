"""The Triton kernel of the fused CUDA step for averages in 8 bits: ``packing.py``, on the device.

A program takes some whole blocks of 128 elements that share a scale, so that it finds their new scales by itself.
Codes and scales of a row lie in one stretch of bytes, a multiple of 4: scales are found in words of 4 bytes.
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
from lightning_adabelief.optim.fused.cuda_low_precision import draw_words, load_weight, store_weight
from lightning_adabelief.optim.fused.cuda_step_sums import store_sums

BLOCK = tl.constexpr(packing.BLOCK)
"""The elements that share a scale."""

# Of the codes of m and s: the last bits of a float32 that they leave out, half of the place above these, and E(Q).
_M_SHIFT, _M_HALF, _M_LARGEST = tl.constexpr(18), tl.constexpr(1 << 17), tl.constexpr(14.75)
_S_SHIFT, _S_HALF, _S_LARGEST = tl.constexpr(19), tl.constexpr(1 << 18), tl.constexpr(63487.0)
_SMALLEST_SCALE = tl.constexpr(2.0**-108)  # above 0
_INFINITY = tl.constexpr(0x7F800000)
_NAN = tl.constexpr(0x7FC00000)
_ONE = tl.constexpr(0x3F800000)  # the bits of 1
_SIZE = tl.constexpr(0x7FFFFFFF)  # all bits of a float32 but the sign


@triton.jit(do_not_specialize=RULE_ARGUMENTS)
def packed_rule(
    table,
    owners,
    scales,
    program_sums,
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
    MISSING: tl.constexpr,
    KEPT: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Take the step on BLOCKS blocks of the tensor whose row ``owners`` holds.

    As ``rule``, but with averages in codes; ALIGNED promises rows of a multiple of 8 elements.
    """
    i = tl.load(owners + tl.program_id(0)).to(tl.int64)
    row = table + i * COLUMNS
    numel, length = tl.load(row + 6), tl.load(row + 11)
    if ALIGNED:
        length = tl.multiple_of(length, 8)
    blocks_a_row = ((length + (BLOCK - 1)) // BLOCK).to(tl.uint32)
    code_words = (length + 3) // 4
    words_a_row = code_words + blocks_a_row

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
    code_place = (index * words_a_row * 4 + start_in_row)[:, None] + offsets
    scale_place = (index * words_a_row + code_words + block)[:, None]
    scale_mask = left[:, None] > 0

    theta_at = load_pointer(row, PARAM, ALIGNED) + place
    correction_at = load_pointer(row + 8, tl.int8, ALIGNED) + place
    low_at = load_pointer(row + 9, tl.uint8, ALIGNED) + place
    m_at = load_pointer(row + 2, tl.int8, ALIGNED) + code_place
    s_at = load_pointer(row + 3, tl.uint8, ALIGNED) + code_place
    max_s_at = load_pointer(row + 4, tl.uint8, ALIGNED) + code_place
    m_scale_at = load_pointer(row + 2, tl.float32, ALIGNED) + scale_place
    s_scale_at = load_pointer(row + 3, tl.float32, ALIGNED) + scale_place
    max_s_scale_at = load_pointer(row + 4, tl.float32, ALIGNED) + scale_place

    theta = load_weight(theta_at, correction_at, low_at, mask, tl.float32, MISSING, KEPT)
    g = load_gradient(load_pointer(row + 1, GRAD, ALIGNED) + place, mask, grad_scale, GRAD, tl.float32)
    m = _decode_momentum(tl.load(m_at, mask=mask), tl.load(m_scale_at, mask=scale_mask))
    s = _decode_variance(tl.load(s_at, mask=mask), tl.load(s_scale_at, mask=scale_mask))
    max_s = s
    if AMSGRAD:
        max_s = _decode_variance(tl.load(max_s_at, mask=mask), tl.load(max_s_scale_at, mask=scale_mask))

    scales += i * SCALES
    before, grad, m_before = theta, g, m
    theta, g, m, s, max_s = step(
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
    words = draw_words((tl.load(scales + 4).to(tl.int64) + place).to(tl.uint32))
    theta = store_weight(theta, theta_at, correction_at, low_at, words, mask, PARAM, MISSING, KEPT)
    if program_sums is not None:
        store_sums(program_sums, grad, g, m_before, s, before, theta, mask)

    new_scales = _find_scales(m, mask, ROUND_UP=False)
    tl.store(m_at, _code_momentum(m, new_scales).to(tl.int8), mask=mask)
    tl.store(m_scale_at, new_scales, mask=scale_mask)
    new_scales = _find_scales(s, mask, ROUND_UP=False)
    codes = _code_variance(s, new_scales, (words >> (32 - _S_SHIFT)).to(tl.int32))
    tl.store(s_at, codes.to(tl.uint8), mask=mask)
    tl.store(s_scale_at, new_scales, mask=scale_mask)
    if AMSGRAD:
        new_scales = _find_scales(max_s, mask, ROUND_UP=True)
        tl.store(max_s_at, _code_variance(max_s, new_scales, _S_HALF).to(tl.uint8), mask=mask)
        tl.store(max_s_scale_at, new_scales, mask=scale_mask)


@triton.jit
def _expand(codes, SHIFT: tl.constexpr):
    """Return E(q) of int32 codes that are not negative."""
    return ((codes << SHIFT) + _ONE).to(tl.float32, bitcast=True) - 1.0


@triton.jit
def _decode_momentum(codes, scales):
    codes = codes.to(tl.int32)
    sizes = _expand(tl.abs(codes), _M_SHIFT)
    return tl.where(codes < 0, -sizes, sizes) * tl.div_rn(scales, _M_LARGEST)


@triton.jit
def _decode_variance(codes, scales):
    return _expand(codes.to(tl.int32), _S_SHIFT) * tl.div_rn(scales, _S_LARGEST)


@triton.jit
def _find_scales(values, mask, ROUND_UP: tl.constexpr):
    """Return the scale of each block of (BLOCKS, 128) numbers; ROUND_UP takes the next power of two."""
    # Bits of magnitudes are ordered as the magnitudes are, with infinity and NaN above all others.
    bits = tl.where(mask, values.to(tl.int32, bitcast=True) & _SIZE, 0)
    largest = tl.max(bits, axis=1, keep_dims=True)
    if ROUND_UP:
        largest = tl.where(largest < _INFINITY, (largest + 0x7FFFFF) & _INFINITY, largest)
    scales = tl.where(largest < _INFINITY, largest, _NAN).to(tl.float32, bitcast=True)
    return tl.where(scales > 0, tl.maximum(scales, _SMALLEST_SCALE), scales)


@triton.jit
def _compress(values, scales, draw, LARGEST: tl.constexpr, SHIFT: tl.constexpr):
    """Return the codes of numbers >= 0, as int32; ``draw`` is added to the SHIFT bits that are left out."""
    factors = tl.div_rn(LARGEST, tl.where(scales > 0, scales, float("inf")))
    is_above = (factors * scales > LARGEST).to(tl.int32)  # the largest number's code is not to exceed Q
    factors = (factors.to(tl.int32, bitcast=True) - is_above).to(tl.float32, bitcast=True)
    shifted = (values * factors + 1.0).to(tl.int32, bitcast=True)
    return (shifted - _ONE + draw) >> SHIFT


@triton.jit
def _code_momentum(values, scales):
    values = tl.where(scales == scales, values, 0.0)
    sizes = _compress(tl.abs(values), scales, _M_HALF, _M_LARGEST, _M_SHIFT)
    return tl.where(values < 0, -sizes, sizes)


@triton.jit
def _code_variance(values, scales, draw):
    values = tl.where(scales == scales, values, 0.0)
    codes = _compress(values, scales, draw, _S_LARGEST, _S_SHIFT)
    return tl.where(values > 0, tl.maximum(codes, 1), 0)
