"""Weights in bfloat16 and float16: the bits that they lack of the float32 weight, and stochastic rounding.

A step is often smaller than half of a 16-bit weight's last place; rounded to nearest it would be lost, and so
would weight decay. So a step works on a master weight in float32. The weight is the master, rounded to 16 bits;
what that took away is kept beside it, in units of a fraction of the weight's last place::

    master_weight_bits   weight_correction        weight_correction_low       master
    32                   int8, 1/256 of a place   uint8, 1/65536 of a place   a float32, exactly (float16: to 2^-38)
    24                   int8, 1/256 of a place   none                        rounded stochastically to 8 more bits
    16                   none                     none                        rounded stochastically to the weight

They are two tensors of bytes, since collectives of torch.distributed take no integers of 16 bits.

A correction is at most half a place, so one that is stale, because the weight was set by other hands (a
checkpoint, a clamp), changes the weight by no more than that.

All of it is arithmetic on a code: the bits of a float without its sign, as an integer. Of a bfloat16 the code is
the first 16 bits of a float32's. Of a float16 it is the first 16 of the same number in 5 bits of exponent and 23
of mantissa. So the code of the weight is that of the master without its last 16 or 13 bits.

The kernels have the same integers: ``fused/low_precision.h`` and ``fused/cuda_low_precision.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.layout import is_dense
from lightning_adabelief.optim.scaling import Scalar

MISSING_BITS = {torch.bfloat16: 16, torch.float16: 13}
"""The last bits of a master weight's code that a weight of each dtype does not have."""

CORRECTIONS = {"weight_correction": (torch.int8, 24), "weight_correction_low": (torch.uint8, 32)}
"""The dtype of each part of a correction, by its name in the state, and the ``master_weight_bits`` that need it."""

_SIZE = 0x7FFFFFFF  # all bits of a float32 but the sign
_INFINITY = 0x7F800000
_BIAS = (127 - 15) << 23  # of a float32's exponent over a float16's, in the place of the exponent
_SMALLEST_NORMAL = 2.0**-14  # of float16
_UINT32 = 0xFFFFFFFF


def read_master(weight: Tensor, correction: Tensor | None = None, correction_low: Tensor | None = None) -> Tensor:
    """Return the master weight.

    Args:
        weight: A weight in bfloat16 or float16, any shape.
        correction: Its correction, in int8, of the same shape; ``None`` for none.
        correction_low: The last 8 bits of that, in uint8; ``None`` for 0.

    Returns:
        A new float32 tensor of that shape.
    """
    missing = MISSING_BITS[weight.dtype]
    bits = weight.detach().view(torch.int16).to(torch.int32)
    sign = (bits & -0x8000) << 16
    code = (bits & 0x7FFF) << missing
    if correction is not None:
        offset = correction.to(torch.int32) << 8
        if correction_low is not None:
            offset |= correction_low.to(torch.int32)
        code += offset >> (16 - missing)
        code.clamp_(min=0)  # a weight that other hands have set to 0, its correction that of a larger one
    if weight.dtype == torch.float16:
        small = (code + (_BIAS + (1 << 23))).view(torch.float32).sub_(_SMALLEST_NORMAL).view(torch.int32)
        finite = torch.where(code < (1 << 23), small, code + _BIAS)
        code = torch.where(code >= (31 << 23), code | _INFINITY, finite)
    return (code | sign).view(torch.float32)


def write_master(
    weight: Tensor, correction: Tensor | None, correction_low: Tensor | None, master: Tensor, key: Scalar = 0
) -> None:
    """Round a master weight to the weight and its correction, in place.

    Args:
        weight: As for :func:`read_master`; a half rounds away from 0.
        correction: Its correction; without one the weight is rounded stochastically.
        correction_low: The last 8 bits of that; without them the correction is rounded stochastically.
        master: The master weight, in float32.
        key: The draw's, from :func:`make_keys`.
    """
    missing = MISSING_BITS[weight.dtype]
    kept = 0 if correction is None else 8 if correction_low is None else 16
    bits = master.view(torch.int32)
    size = bits & _SIZE
    code = size
    if weight.dtype == torch.float16:
        small = ((size.view(torch.float32) + _SMALLEST_NORMAL).view(torch.int32)).sub_(_BIAS + (1 << 23))
        code = torch.where(size < _BIAS + (1 << 23), small, size - _BIAS).clamp_(max=31 << 23)
    quiet_nan = (0x7FC0 if weight.dtype == torch.bfloat16 else 0x7E00) << missing
    code = code.masked_fill(size > _INFINITY, quiet_nan)
    if kept < missing:  # a random number below the last place that is kept, then all below it is left out
        below = (1 << (missing - kept)) - 1
        code = (code + (draw_words(find_places(weight), key) >> 8 & below).int()) & ~below
    rounded = (code + (1 << (missing - 1))) >> missing
    if correction is not None:
        difference = (code - (rounded << missing)) << (16 - missing)
        correction.copy_(difference >> 8)
        if correction_low is not None:
            correction_low.copy_(difference & 0xFF)
    weight.copy_((rounded | (bits >> 31 << 15)).to(torch.int16).view(weight.dtype))


def make_seed(seed: int, position: int) -> int:
    """Return the seed of a parameter's rounding, an integer below 2^32.

    Args:
        seed: Its param group's ``rounding_seed``.
        position: Its position among all parameters of the optimizer.
    """
    return mix_bits(mix_bits(seed) + position & _UINT32)


def make_keys(seeds: Sequence[int], steps: Sequence[Scalar]) -> list[Any]:
    """Return the keys by which the roundings of a step are drawn; other parameters and other steps have others.

    Args:
        seeds: Of :func:`make_seed`, one a parameter; empty where nothing is rounded stochastically.
        steps: The step t that each parameter takes, numbers or 0-dim tensors.

    Returns:
        As many as ``steps``: integers below 2^32, or such in 0-dim tensors where the steps are tensors.
    """
    if not seeds:
        return [0] * len(steps)
    whole = [step.to(torch.int64) if isinstance(step, Tensor) else int(step) for step in steps]
    return [mix_bits(seed + step & _UINT32) for seed, step in zip(seeds, whole, strict=True)]


def round_to_bfloat16(values: Tensor, rounded: Tensor, draw: Tensor | int) -> None:
    """Round to bfloat16, in place on ``rounded``.

    Args:
        values: Float32 numbers.
        rounded: A bfloat16 tensor of their shape.
        draw: What is added to the 16 bits that are left out, from 0 to 65535: random numbers like ``values`` to round
            stochastically, 32768 to round to the nearest.
    """
    bits = (values.view(torch.int32) + draw) >> 16
    rounded.copy_(bits.to(torch.int16).view(torch.bfloat16).masked_fill(values.isnan(), torch.nan))


def find_places(like: Tensor) -> Tensor:
    """Return each element's place in memory, in an int64 tensor laid out alike; with gaps, its logical place."""
    places = torch.arange(like.numel(), device=like.device)
    dense = not like.is_contiguous() and is_dense(like.shape, like.stride())
    return places.as_strided(like.shape, like.stride()) if dense else places.view(like.shape)


def draw_words(places: Tensor, key: Scalar) -> Tensor:
    """Return 32 random bits for each element, which follow from the key and the element's place.

    Of neighbours they are spread evenly: the places are multiplied by 2^32 over the square of the golden ratio (a Weyl
    sequence), from which a key, a hash, takes all regularity between steps.

    Args:
        places: The elements' places, in an int64 tensor.
        key: From :func:`make_keys`.

    Returns:
        An int64 tensor like ``places``, of numbers from 0 to 2^32 - 1.
    """
    return (places + (key.to(places.device) if isinstance(key, Tensor) else key)) * 0x61C88647 & _UINT32


def mix_bits(value: Any) -> Any:
    """Return a hash of 32 bits of an integer of 32 bits; of a tensor of such in int64, a tensor.

    Source: Thomas Mueller's hash; its factor is below 2^31, so that no product exceeds an int64.
    """
    value = ((value >> 16) ^ value) * 0x45D9F3B & _UINT32
    value = ((value >> 16) ^ value) * 0x45D9F3B & _UINT32
    return (value >> 16) ^ value
