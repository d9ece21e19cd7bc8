"""Codes of 16 and of 8 bits for an optimizer's averages, simulated in float32: what a number is after its storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

RoundTrip = Callable[[Tensor, torch.Generator], Tensor]


class Code(NamedTuple):
    """A way to store an average.

    Attributes:
        name: As the tables have it.
        bytes: Bytes a weight, the scale's share included.
        round_trip: A function of a flat float32 tensor and a source of random numbers, which returns what is read
            back after the tensor was stored.
    """

    name: str
    bytes: float
    round_trip: RoundTrip


FLOAT32 = Code("float32", 4.0, lambda values, generator: values)


def bfloat16(stochastic: bool) -> Code:
    """Make the code that keeps the upper half of a float32."""

    def round_trip(values: Tensor, generator: torch.Generator) -> Tensor:
        if not stochastic:
            return values.bfloat16().float()
        below = torch.randint(1 << 16, values.shape, generator=generator, dtype=torch.int32)
        return ((values.view(torch.int32) + below) & -(1 << 16)).view(torch.float32)

    return Code(f"bfloat16, {_name(stochastic)}", 2.0, round_trip)


def blockwise(name: str, levels: Tensor, block: int, stochastic: bool = False, power_of_two: bool = False) -> Code:
    """Make a code that stores, for each block, its largest magnitude, and each number as one of some fractions of it.

    0 is stored exactly. A number above 0 of a code without a sign, which is for s_t, never becomes 0: the step
    divides by its root.

    Args:
        name: Of the levels.
        levels: The fractions, in ascending order, from 0 or -1 to 1.
        block: Numbers that share a scale.
        stochastic: Round up with the probability that makes the mean right, rather than to the nearest.
        power_of_two: Scale by the next power of two, which takes a byte, rather than by the largest magnitude.
    """
    bits = math.log2(len(levels) + 1) // 1
    is_signed = bool(levels[0] < 0)

    def round_trip(values: Tensor, generator: torch.Generator) -> Tensor:
        padded = torch.nn.functional.pad(values, (0, -len(values) % block)).view(-1, block)
        largest = padded.abs().amax(1, keepdim=True)
        scale = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent) if power_of_two else largest
        fractions = padded / scale.where(largest > 0, 1.0)
        upper = torch.searchsorted(levels, fractions).clamp(1, len(levels) - 1)
        low, high = levels[upper - 1], levels[upper]
        share = torch.rand(fractions.shape, generator=generator) if stochastic else 0.5
        found = torch.where(fractions - low > share * (high - low), high, low)
        if not is_signed:
            found = torch.where(fractions > 0, found.clamp(min=float(levels[1])), found)
        return (found * scale).flatten()[: len(values)]

    full = f"{name}, {'power of two, ' if power_of_two else ''}{_name(stochastic)}, {block}"
    return Code(full, bits / 8 + (1 if power_of_two else 4) / block, round_trip)


def linear_levels(bits: int, signed: bool) -> Tensor:
    """Return equally spaced levels."""
    steps = 2 ** (bits - signed) - 1
    return torch.arange(-steps if signed else 0, steps + 1).double().div(steps).float()


def power_levels(bits: int, signed: bool, exponent: int) -> Tensor:
    """Return levels that are a power of equally spaced ones: companded, closer together near 0."""
    linear = linear_levels(bits, signed).double()
    return (linear.sign() * linear.abs() ** exponent).float()


def logarithm_levels(bits: int, signed: bool, mantissa_bits: int) -> Tensor:
    """Return levels whose log2(1 + x) is equally spaced, but for its curve within an octave, which is straightened.

    They are the numbers x for which all but the first bits of the float 1 + x are 0: (1 + f) 2^e - 1, where
    q = 2^mantissa_bits (e + f) counts from 0, as fractions of the largest.
    """
    logarithms = torch.arange(2 ** (bits - signed)).double() / 2**mantissa_bits
    numbers = (1 + logarithms.frac()) * torch.exp2(logarithms.floor()) - 1
    return _mirror(numbers / numbers[-1], signed)


def dynamic_levels(signed: bool) -> Tensor:
    """Return the 8-bit dynamic map of Dettmers et al., 8-bit Optimizers via Block-wise Quantization (ICLR 2022).

    Each decade below the largest has half as many levels as the one above it.
    """
    decades = []
    for decade in range(7):
        count = 2 ** (decade if signed else decade + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        decades.append(10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2)
    positive = torch.cat([torch.zeros(1, dtype=torch.float64), *decades, torch.ones(1, dtype=torch.float64)])
    return _mirror(positive, signed)[int(signed) :]  # 256 of them, without -1


def _mirror(positive: Tensor, signed: bool) -> Tensor:
    return (torch.cat([-positive[1:].flip(0), positive]) if signed else positive).float()


def _name(stochastic: bool) -> str:
    return "stochastic" if stochastic else "nearest"


BLOCKS = (64, 128, 256)

_M16 = {
    "squares": power_levels(16, signed=True, exponent=2),
    **{f"log(1 + x) m{bits}": logarithm_levels(16, True, bits) for bits in (12, 11)},
}
_M8 = {
    "linear": linear_levels(8, signed=True),
    "dynamic": dynamic_levels(signed=True),
    "squares": power_levels(8, signed=True, exponent=2),
    **{f"log(1 + x) m{bits}": logarithm_levels(8, True, bits) for bits in (5, 4, 3)},
}

CODES_OF_M: list[Code] = [
    FLOAT32,
    *(bfloat16(stochastic) for stochastic in (False, True)),
    *(blockwise(f"16 bits, {name}", levels, 128) for name, levels in _M16.items()),
    *(
        blockwise(f"8 bits, {name}", levels, 128, stochastic)
        for stochastic in (False, True)
        for name, levels in _M8.items()
    ),
    *(blockwise("8 bits, log(1 + x) m5", _M8["log(1 + x) m5"], block) for block in (64, 256)),
]
"""The codes that are tried for m_t."""

_S16 = {
    "fourth powers": power_levels(16, signed=False, exponent=4),
    **{f"log(1 + x) m{bits}": logarithm_levels(16, False, bits) for bits in (12, 11)},
}
_S8 = {
    "linear": linear_levels(8, signed=False),
    "dynamic": dynamic_levels(signed=False),
    "fourth powers": power_levels(8, signed=False, exponent=4),
    **{f"log(1 + x) m{bits}": logarithm_levels(8, False, bits) for bits in (5, 4, 3)},
}

CODES_OF_S: list[Code] = [
    FLOAT32,
    *(bfloat16(stochastic) for stochastic in (False, True)),
    *(
        blockwise(f"{bits} bits, {name}", levels, 128, stochastic)
        for bits, levels_by_name in ((16, _S16), (8, _S8))
        for stochastic in (False, True)
        for name, levels in levels_by_name.items()
    ),
    *(blockwise("8 bits, log(1 + x) m4", _S8["log(1 + x) m4"], block, stochastic=True) for block in (64, 256)),
]
"""The codes that are tried for s_t."""

CODES_OF_MAXIMUM: list[Code] = [
    blockwise(f"{bits} bits, {name}", levels[name], 128, stochastic, power_of_two)
    for bits, levels, name in ((16, _S16, "log(1 + x) m11"), (8, _S8, "log(1 + x) m4"))
    for stochastic, power_of_two in ((False, False), (True, False), (False, True))
]
"""The codes that are tried for amsgrad's maximum."""


def find_code(codes: list[Code], name: str) -> Code:
    """Return the code of that name."""
    return next(code for code in codes if code.name == name)
