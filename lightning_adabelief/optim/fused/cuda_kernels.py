"""The two Triton kernels of the fused CUDA step: ``scaling.py`` and ``rule.py``, on the device.

Both, and that of ``cuda_packed.py`` in the place of ``rule``, find their tensors through a table of addresses
with a row for each tensor: theta, g, m, s, the largest s, step, then the number of elements and the number of
the tensor's first program; for a weight of 16 bits its correction and the last bits of that; the seed of its
rounding; and for packed averages the number of elements in a row of the parameter. A scalar of the step is
passed as the bits of a float64 in an integer, because Triton passes a float as float32.
"""
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from lightning_adabelief.optim.fused.cuda_low_precision import (
    draw_words,
    load_average,
    load_weight,
    mix_bits,
    store_average,
    store_weight,
)
from lightning_adabelief.optim.fused.cuda_step_sums import store_sums

COLUMNS = tl.constexpr(12)
"""The length of a row of the table."""

SCALES = tl.constexpr(5)
"""The scalars of a tensor that ``scale`` computes and ``rule`` reads."""

_SCALE_ARGUMENTS = ["n", "lr", "log_beta1", "log_beta2", "rho_inf", "warmup_length", "decay", "fixed_decay"]
_SCALE_ARGUMENTS.append("max_update_to_lr")
RULE_ARGUMENTS = ["sign", "decay", "one_minus_beta1", "beta2", "residual_weight", "eps"]
"""The names of the scalars that all tensors of a param group share, for which nothing is compiled again."""


# do_not_specialize: Triton would compile again for values such as 1 or a multiple of 16.
@triton.jit(do_not_specialize=_SCALE_ARGUMENTS)
def scale(
    table,
    scales,
    n: tl.int64,
    found_inf,
    lr_tensor,
    lr: tl.int64,
    log_beta1: tl.int64,
    log_beta2: tl.int64,
    rho_inf: tl.int64,
    warmup_length: tl.int64,
    decay: tl.int64,
    fixed_decay: tl.int64,
    max_update_to_lr: tl.int64,
    BOUNDED: tl.constexpr,
    RECTIFY: tl.constexpr,
    SGD: tl.constexpr,
    RHO_TRACTABLE: tl.constexpr,
    TENSORS: tl.constexpr,
):
    """Count the step of TENSORS tensors and write their (factor of theta, step_size, root_scale, max_quotient, key).

    In float64, because 1 - beta2^t keeps just 3 digits of its precision at t = 1. root_scale is 0 where the
    denominator is 1, max_quotient the most that m / denominator may be, and key that of the rounding's draw.
    found_inf and lr_tensor may be None.
    """
    i = tl.program_id(0).to(tl.int64) * TENSORS + tl.arange(0, TENSORS)
    mask = i < n
    step_at = tl.load(table + i * COLUMNS + 5, mask=mask, other=0).to(tl.pointer_type(tl.float32))
    steps_taken = tl.load(step_at, mask=mask, other=0.0)
    if found_inf is None:
        tl.store(step_at, steps_taken + 1, mask=mask)
    else:
        tl.store(step_at, tl.where(tl.load(found_inf) == 0, steps_taken + 1, steps_taken), mask=mask)

    t = (steps_taken + 1).to(tl.float64)
    base_lr = _decode_float64(lr) if lr_tensor is None else tl.load(lr_tensor).to(tl.float64)
    lr_t = base_lr * tl.minimum(1.0, t / _decode_float64(warmup_length))
    beta2_t = tl.exp(t * _decode_float64(log_beta2))
    root_correction2 = tl.sqrt(1 - beta2_t)
    step_size = lr_t / (1 - tl.exp(t * _decode_float64(log_beta1)))
    root_scale = 1 / root_correction2
    if RECTIFY:
        rho_inf_f64 = _decode_float64(rho_inf)
        rho_t = rho_inf_f64 - 2 * t * beta2_t / (1 - beta2_t)
        tractable = rho_t >= RHO_TRACTABLE
        square = (rho_t - 4) / (rho_inf_f64 - 4) * (rho_t - 2) / rho_t * rho_inf_f64 / (rho_inf_f64 - 2)
        r_t = tl.sqrt(tl.where(tractable, square, 0.0))
        step_size *= tl.where(tractable, root_correction2 * r_t, SGD)
        root_scale = tl.where(tractable, 1.0, 0.0)

    scales += i * SCALES
    fixed_shrink = tl.where(lr_t != 0, _decode_float64(fixed_decay), 0.0)  # at lr 0 nothing moves
    tl.store(scales, 1 - fixed_shrink - _decode_float64(decay) * lr_t, mask=mask)
    tl.store(scales + 1, step_size, mask=mask)
    tl.store(scales + 2, root_scale, mask=mask)
    if BOUNDED:
        max_update = _decode_float64(max_update_to_lr) * lr_t
        tl.store(scales + 3, max_update / tl.where(step_size != 0, step_size, 1.0), mask=mask)
    seed = tl.load(table + i * COLUMNS + 10, mask=mask, other=0)
    tl.store(scales + 4, mix_bits((seed + t.to(tl.int64)).to(tl.uint32)).to(tl.float64), mask=mask)


@triton.jit(do_not_specialize=RULE_ARGUMENTS)
def rule(
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
    AVERAGE: tl.constexpr,
    MISSING: tl.constexpr,
    KEPT: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take the step on one block of BLOCK elements of the tensor whose row ``owners`` holds.

    ALIGNED promises addresses that are multiples of 16 bytes and sizes that are multiples of 8
    elements, so that a thread reads and writes 16 bytes at a time. program_sums, for the sums of a step that is
    measured, grad_scale and found_inf may be None.
    MISSING is 0, or for a weight of 16 bits as in ``cuda_low_precision.py``, with KEPT; PARAM is then int16, and so
    is AVERAGE for averages in bfloat16.
    """
    STATE: tl.constexpr = tl.float32 if AVERAGE == tl.int16 else AVERAGE
    i = tl.load(owners + tl.program_id(0)).to(tl.int64)
    row = table + i * COLUMNS
    start = (tl.program_id(0) - tl.load(row + 7)) * BLOCK
    left = tl.load(row + 6) - start
    if found_inf is not None:
        left = tl.where(tl.load(found_inf) == 0, left, 0)
    if ALIGNED:
        left = tl.multiple_of(left, 8)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < left

    place = start + offsets
    theta_at = load_pointer(row, PARAM, ALIGNED) + place
    correction_at = load_pointer(row + 8, tl.int8, ALIGNED) + place
    low_at = load_pointer(row + 9, tl.uint8, ALIGNED) + place
    m_at = load_pointer(row + 2, AVERAGE, ALIGNED) + place
    s_at = load_pointer(row + 3, AVERAGE, ALIGNED) + place
    max_s_at = load_pointer(row + 4, AVERAGE, ALIGNED) + place
    theta = load_weight(theta_at, correction_at, low_at, mask, STATE, MISSING, KEPT)
    g = load_gradient(load_pointer(row + 1, GRAD, ALIGNED) + place, mask, grad_scale, GRAD, STATE)
    m = load_average(m_at, mask, AVERAGE)
    s = load_average(s_at, mask, AVERAGE)
    max_s = load_average(max_s_at, mask, AVERAGE) if AMSGRAD else s

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
        STATE,
    )
    words = draw_words((tl.load(scales + 4).to(tl.int64) + place).to(tl.uint32))
    store_average(m, m_at, (words & 0xFFFF).to(tl.int32), mask, AVERAGE)
    store_average(s, s_at, (words >> 16).to(tl.int32), mask, AVERAGE)
    if AMSGRAD:
        store_average(max_s, max_s_at, 0x8000, mask, AVERAGE)
    theta = store_weight(theta, theta_at, correction_at, low_at, words, mask, PARAM, MISSING, KEPT)
    if program_sums is not None:
        store_sums(program_sums, grad, g, m_before, s, before, theta, mask)


@triton.jit
def load_gradient(g_at, mask, grad_scale, GRAD: tl.constexpr, STATE: tl.constexpr):
    """Return gradients in STATE; with a ``grad_scale`` divided by it, and stored."""
    g = tl.load(g_at, mask=mask).to(STATE)
    if grad_scale is not None:
        g /= tl.load(grad_scale).to(STATE)
        tl.store(g_at, g.to(GRAD), mask=mask)
    return g


@triton.jit
def step(
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
    AMSGRAD: tl.constexpr,
    BOUNDED: tl.constexpr,
    STATE: tl.constexpr,
):
    """Return theta, g as it was used, m, s and the largest s after a step, all in STATE: the arithmetic of ``rule.py``.

    ``scales`` points to the scalars of the tensor. Without AMSGRAD, max_s is not read, and s is returned for it.
    """
    g *= _decode_float64(sign).to(STATE)
    theta *= tl.load(scales).to(STATE)
    g += _decode_float64(decay).to(STATE) * theta

    d = g - m
    m += _decode_float64(one_minus_beta1).to(STATE) * d
    beta2_value = _decode_float64(beta2).to(STATE)
    s = tl.where(beta2_value != 0, s * beta2_value, 0.0)  # an infinite s times 0 would be NaN
    s += _decode_float64(residual_weight).to(STATE) * d * d + _decode_float64(eps).to(STATE)
    if AMSGRAD:
        max_s = tl.maximum(max_s, s, propagate_nan=tl.PropagateNan.ALL)
    else:
        max_s = s

    step_size, root_scale = tl.load(scales + 1).to(STATE), tl.load(scales + 2).to(STATE)
    denominator = tl.where(root_scale > 0, tl.sqrt(max_s) * root_scale + _decode_float64(eps).to(STATE), 1.0)
    quotient = m / denominator
    if BOUNDED:  # a NaN stays one
        max_quotient = tl.load(scales + 3).to(STATE)
        quotient = tl.where(quotient > max_quotient, max_quotient, quotient)
        quotient = tl.where(quotient < -max_quotient, -max_quotient, quotient)
    theta -= tl.where(step_size != 0, step_size * quotient, 0.0)  # even where m is infinite
    return theta, g, m, s, max_s


@triton.jit
def _decode_float64(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def load_pointer(cell, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the pointer to DTYPE in a cell of the table; ALIGNED promises a multiple of 16 bytes."""
    pointer = tl.load(cell).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer
