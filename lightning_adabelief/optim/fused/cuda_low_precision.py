"""Weights and averages of 16 bits on the device: :mod:`lightning_adabelief.optim.low_precision`.

Called by the kernels, in the same integers. MISSING is the number of bits of a master weight's code that the
weight does not have, 13 for float16 and 16 for bfloat16; KEPT is that of its correction, 0 for none. Pointers to
numbers of 16 bits are to int16.
"""
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

_BIAS = tl.constexpr(112 << 23)
_NORMAL = tl.constexpr(1 << 23)
_SMALLEST_NORMAL = tl.constexpr(2.0**-14)
_FLOAT16_INFINITY = tl.constexpr(31 << 23)
_INFINITY = tl.constexpr(0x7F800000)


@triton.jit
def load_weight(theta_at, correction_at, low_at, mask, STATE: tl.constexpr, MISSING: tl.constexpr, KEPT: tl.constexpr):
    """Return weights in STATE; of weights of 16 bits, the master weights."""
    if MISSING == 0:
        theta = tl.load(theta_at, mask=mask).to(STATE)
    else:
        raw = tl.load(theta_at, mask=mask).to(tl.int32)
        correction = tl.zeros_like(raw)
        if KEPT > 0:
            correction = tl.load(correction_at, mask=mask).to(tl.int32) << 8
        if KEPT == 16:
            correction |= tl.load(low_at, mask=mask).to(tl.int32)
        theta = read_master(raw, correction, MISSING)
    return theta


@triton.jit
def store_weight(
    theta,
    theta_at,
    correction_at,
    low_at,
    words,
    mask,
    PARAM: tl.constexpr,
    MISSING: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Store weights that :func:`load_weight` has read, and return them as they are now stored.

    ``words`` are those of :func:`draw_words`.
    """
    if MISSING == 0:
        tl.store(theta_at, theta.to(PARAM), mask=mask)
    else:
        raw, correction = write_master(theta, words, MISSING, KEPT)
        tl.store(theta_at, raw.to(PARAM), mask=mask)
        if KEPT > 0:
            tl.store(correction_at, (correction >> 8).to(tl.int8), mask=mask)
        if KEPT == 16:
            tl.store(low_at, correction.to(tl.uint8), mask=mask)
        theta = read_master(raw, correction, MISSING)
    return theta


@triton.jit
def read_master(raw, correction, MISSING: tl.constexpr):
    """Return the float32 master weights of weights' 16 bits and the 16 bits of their corrections, both as int32."""
    code = ((raw & 0x7FFF) << MISSING) + (correction >> (16 - MISSING))
    code = tl.maximum(code, 0)
    if MISSING == 13:
        small = (code + (_BIAS + _NORMAL)).to(tl.float32, bitcast=True) - _SMALLEST_NORMAL
        finite = tl.where(code < _NORMAL, small.to(tl.int32, bitcast=True), code + _BIAS)
        code = tl.where(code >= _FLOAT16_INFINITY, code | _INFINITY, finite)
    return (code | ((raw & -0x8000) << 16)).to(tl.float32, bitcast=True)


@triton.jit
def write_master(master, words, MISSING: tl.constexpr, KEPT: tl.constexpr):
    """Return weights' 16 bits and the 16 of corrections of float32 master weights, as int32."""
    bits = master.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    if MISSING == 13:
        shifted = size.to(tl.float32, bitcast=True) + _SMALLEST_NORMAL
        small = shifted.to(tl.int32, bitcast=True) - (_BIAS + _NORMAL)
        code = tl.minimum(tl.where(size < _BIAS + _NORMAL, small, size - _BIAS), _FLOAT16_INFINITY)
        code = tl.where(size > _INFINITY, 0x7E00 << 13, code)
    else:
        code = tl.where(size > _INFINITY, 0x7FC00000, size)
    if KEPT < MISSING:
        below: tl.constexpr = (1 << (MISSING - KEPT)) - 1
        code = (code + ((words >> 8).to(tl.int32) & below)) & ~below
    rounded = (code + (1 << (MISSING - 1))) >> MISSING
    difference = code - (rounded << MISSING)
    return rounded | ((bits >> 31) << 15), difference << (16 - MISSING)


@triton.jit
def load_average(at, mask, AVERAGE: tl.constexpr):
    """Return an average in the dtype of its arithmetic; AVERAGE is int16 for bfloat16."""
    average = tl.load(at, mask=mask)
    if AVERAGE == tl.int16:
        average = (average.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return average


@triton.jit
def store_average(average, at, draw, mask, AVERAGE: tl.constexpr):
    """Store an average that :func:`load_average` has read.

    ``draw``, from 0 to 0xFFFF, is added to the 16 bits that a bfloat16 lacks: 0x8000 rounds to the nearest.
    """
    if AVERAGE == tl.int16:
        rounded = (average.to(tl.int32, bitcast=True) + draw) >> 16
        average = tl.where(average == average, rounded, 0x7FC0).to(tl.int16)
    tl.store(at, average, mask=mask)


@triton.jit
def draw_words(keys):
    """Return 32 random bits for each element; ``keys`` is the step's key plus the element's place, in uint32."""
    return keys * 0x61C88647


@triton.jit
def mix_bits(value):
    """Return a hash of 32 bits of a uint32."""
    value = ((value >> 16) ^ value) * 0x45D9F3B
    value = ((value >> 16) ^ value) * 0x45D9F3B
    return (value >> 16) ^ value
