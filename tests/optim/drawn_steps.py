"""Steps of drawn options, shapes and values, and the interval in which float64 says each result must lie.

A result in fewer bits differs from the exact one by rounding, which cancellation in g_t - m_{t-1} magnifies without
bound. So the rule is evaluated here in float64 from the very numbers that a step starts from, with a bound of
the error that each operation may add in the dtype of the state; what a step leaves behind must lie within. A run
of several steps is checked step by step, so that errors don't add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS, read_master

IMPLEMENTATIONS: dict[str, dict[str, Any]] = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True),
    "capturable foreach, tensor lr and betas": dict(foreach=True, capturable=True),
    "differentiable": dict(foreach=False, differentiable=True),
    "skip": dict(foreach=False, nonfinite="skip"),
    "skip, foreach": dict(foreach=True, nonfinite="skip"),
    "skip, fused": dict(fused=True, nonfinite="skip"),
}

DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64

OPERATIONS = 8
"""The roundings of one quantity that are allowed for, each of half a unit in the last place."""


@dataclass(frozen=True)
class Case:
    """A drawn run.

    Attributes:
        options: Of AdaBelief.
        shapes: Of the parameters.
        dtype: Of the parameters and their gradients.
        layout: How the parameters lie in memory: ``"contiguous"``, ``"transposed"`` or ``"gaps"``.
        steps: How many are taken.
        steps_before: The step count of the state that the run starts from; 0 for none.
        exponents: The powers of ten of the weights, the gradients and the momentum at the start.
        zeros: The share of gradients that are 0.
        seed: Of the values.
    """

    options: dict[str, Any]
    shapes: list[tuple[int, ...]]
    dtype: torch.dtype
    layout: str
    steps: int
    steps_before: int
    exponents: tuple[int, int, int]
    zeros: float
    seed: int


def rates(largest: float) -> st.SearchStrategy[float]:
    """Decay rates as they are used, and any other below ``largest``."""
    return st.sampled_from([0.5, 0.9, 0.99, 0.999]).filter(lambda x: x <= largest) | st.floats(0, largest)


@st.composite
def cases(draw: Any) -> Case:
    """Draw a run: any options that go together, and values of any size that overflows nowhere."""
    residual = draw(st.sampled_from(["updated", "previous"]))
    beta1 = draw(rates(0.99).filter(lambda x: x > 1e-3 or residual == "previous"))
    fraction = draw(st.booleans())
    booleans = ("amsgrad", "weight_decouple", "fixed_decay", "rectify", "degenerated_to_sgd", "maximize")
    options = {name: draw(st.booleans()) for name in booleans} | {
        "lr": draw(st.sampled_from([0.0, 1e-3, 1.0]) | st.floats(1e-8, 1)),
        "betas": (beta1, draw(rates(0.9999))),
        "eps": draw(st.sampled_from([1e-16, 1e-8]) | st.floats(1e-20, 1e-2)),
        "weight_decay": draw(st.sampled_from([0.0, 0.1]) | st.floats(1e-6, 0.5)),
        "warmup": draw(st.floats(0, 0.9) if fraction else st.integers(0, 20)),
        "total_steps": draw(st.integers(1, 50)) if fraction else None,
        "residual": residual,
        "max_update_to_lr": draw(st.none() | st.floats(1e-3, 1e3)),
        "master_weight_bits": draw(st.sampled_from([32, 32, 24, 16])),
        "rounding_seed": draw(st.integers(0, 2**32 - 1)),
    }
    dtype = draw(st.sampled_from(DTYPES))
    narrow = dtype == torch.float16  # whose largest number is 65504
    shape = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    return Case(
        options=options,
        shapes=draw(st.lists(shape, min_size=1, max_size=3)),
        dtype=dtype,
        layout=draw(st.sampled_from(["contiguous", "transposed", "gaps"])),
        steps=draw(st.integers(1, 3)),
        steps_before=draw(st.sampled_from([0, 0, 1, 3, 4, 5, 6, 100, 10_000])),
        exponents=(
            draw(st.integers(-4, 2)),
            draw(st.integers(-3, 2) if narrow else st.integers(-12, 12)),
            draw(st.integers(-3, 2) if narrow else st.integers(-12, 12)),
        ),
        zeros=draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def can_take(implementation: str, case: Case) -> bool:
    """True if an implementation serves such a case: fused takes real numbers, autograd no weights of 16 bits."""
    if implementation == "differentiable":
        return case.dtype not in MISSING_BITS
    return not (case.dtype.is_complex and "fused" in implementation)


def run_case(case: Case, implementation: str) -> int:
    """Take the steps of a case, and check each of them.

    Args:
        case: A drawn run.
        implementation: One of ``IMPLEMENTATIONS``.

    Returns:
        The number of elements that were checked, of weights and of state.

    Raises:
        AssertionError: If one lies outside the interval in which it must be.
    """
    generator = torch.Generator().manual_seed(case.seed)
    weights, gradients, momentum = (10.0**exponent for exponent in case.exponents)
    state_dtype = torch.promote_types(case.dtype, torch.float32)
    params = [_lay_out(_draw(shape, weights, generator, case.dtype), case.layout) for shape in case.shapes]
    options = case.options | IMPLEMENTATIONS[implementation]
    if "tensor" in implementation:
        lr, *betas = (torch.tensor(x, dtype=torch.float64) for x in (options["lr"], *options["betas"]))
        options |= {"lr": lr, "betas": tuple(betas)}
    optimizer = AdaBelief(params, **options)
    if case.steps_before:
        for param in params:
            m = _draw(param.shape, momentum, generator, state_dtype)
            s = (torch.view_as_real(m) if m.is_complex() else m).square()
            s = torch.view_as_complex(s) if m.is_complex() else s
            optimizer.state[param] = {"step": torch.tensor(float(case.steps_before)), "exp_avg": m, "exp_avg_var": s}
            if case.options["amsgrad"]:
                optimizer.state[param]["max_exp_avg_var"] = s * 1.5
    checked = 0
    for _ in range(case.steps):
        for param in params:
            grad = _draw(param.shape, gradients, generator, case.dtype)
            param.grad = grad.masked_fill(torch.rand(grad.shape, generator=generator) < case.zeros, 0.0)
        before = [_read_numbers(param, optimizer, case) for param in params]
        with mock.patch.object(state_module, "_get_capturable_supported_devices", lambda: ["cpu"]):
            optimizer.step()
        for param, values in zip(params, before, strict=True):
            checked += _check_param(param, optimizer.state[param], values, case)
    return checked


def _draw(shape: tuple[int, ...], scale: float, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Draw numbers of the size of ``scale``, some of them ten and a hundred times smaller."""
    real = (*shape, 2) if dtype.is_complex else tuple(shape)
    smaller = 10.0 ** -torch.randint(0, 3, real, generator=generator).double()
    values = scale * smaller * torch.randn(real, generator=generator, dtype=torch.float64)
    return (torch.view_as_complex(values) if dtype.is_complex else values).to(dtype)


def _lay_out(values: Tensor, layout: str) -> Tensor:
    """Return the same numbers in another order in memory, or with gaps between them."""
    if layout == "transposed" and values.dim() >= 2:
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "gaps":
        return torch.stack([values, values], dim=-1)[..., 0]
    return values


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a copy in float64; of complex numbers their pairs."""
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double().numpy().copy()


def _read_weight(param: Tensor, state: dict[str, Any]) -> Tensor:
    """Return the weight that a step works on."""
    return read_master(param, *map(state.get, CORRECTIONS)) if param.dtype in MISSING_BITS else param


def _bound_rounding(low: Tensor, high: Tensor, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the bounds of a master weight in float32, as the bits that are kept of it allow for."""
    bits = options["master_weight_bits"]
    kept = 0 if bits == 32 or options["lr"] == 0 else {24: 2.0**-8, 16: 1.0}[bits]
    place = kept * torch.finfo(dtype).eps
    smallest = 2.0**-38 if dtype == torch.float16 else 0.0
    smallest += kept * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    low, high = low - place * low.abs() - smallest, high + place * high.abs() + smallest
    if dtype == torch.float16:  # beyond its largest number a weight is infinite
        low, high = (bound.masked_fill(bound.abs() >= 65504, math.inf).copysign(bound) for bound in (low, high))
        low = torch.where(low == math.inf, 65504.0, low)
        high = torch.where(high == -math.inf, -65504.0, high)
    return low, high


def _read_numbers(param: Tensor, optimizer: AdaBelief, case: Case) -> dict[str, np.ndarray]:
    """Return all that a step of a parameter starts from."""
    assert param.grad is not None
    state = optimizer.state.get(param, {})
    theta = _to_numpy(_read_weight(param, state))
    averages = ("exp_avg", "exp_avg_var", "max_exp_avg_var")
    zeros = dict.fromkeys(averages, np.zeros_like(theta))
    numbers = {name: _to_numpy(state[name]) if name in state else zeros[name] for name in averages}
    step = int(state["step"]) if "step" in state else 0
    return {"theta": theta, "grad": _to_numpy(param.grad), "t": np.array(step + 1), **numbers}


def _check_param(param: Tensor, state: dict[str, Tensor], before: dict[str, np.ndarray], case: Case) -> int:
    """Check what a step left of a parameter and its state, and return the number of elements."""
    assert state["step"] == before["t"], f"the step is {state['step']}, not {before['t']}"
    unit = torch.finfo(state["exp_avg"].dtype).eps / 2
    tiny = torch.finfo(state["exp_avg"].dtype).tiny
    with np.errstate(over="ignore"):
        intervals = bound_step(before, case.options, unit, tiny)
    found = {"theta": _read_weight(param, state), **{name: state[name] for name in intervals if name != "theta"}}
    checked = 0
    for name, (low, high) in intervals.items():
        values = found[name]
        real = torch.view_as_real(values.detach()) if values.is_complex() else values.detach()
        # Rounding is monotonic: what lies between two numbers does so when all three are rounded.
        low_rounded, high_rounded = (torch.from_numpy(np.asarray(x)).to(real.dtype) for x in (low, high))
        if name == "theta" and param.dtype in MISSING_BITS:
            low_rounded, high_rounded = _bound_rounding(low_rounded, high_rounded, param.dtype, case.options)
        inside = (low_rounded <= real) & (real <= high_rounded)
        assert inside.all(), (
            f"{name} at step {before['t']}: {real[~inside][0].item()!r} is not between "
            f"{low_rounded[~inside][0].item()!r} and {high_rounded[~inside][0].item()!r}"
        )
        checked += real.numel()
    return checked


Interval = tuple[np.ndarray, np.ndarray]


def bound_step(before: dict[str, np.ndarray], options: dict[str, Any], unit: float, tiny: float) -> dict[str, Interval]:
    """Return the intervals in which the results of one step must lie.

    Args:
        before: ``theta``, ``grad``, ``exp_avg``, ``exp_avg_var``, ``max_exp_avg_var`` and the step ``t`` that is taken.
        options: AdaBelief's.
        unit: The largest relative error of one rounding in the state's dtype.
        tiny: The smallest normal number of that dtype, below which errors are absolute.

    Returns:
        From ``theta``, ``exp_avg``, ``exp_avg_var`` and, under amsgrad, ``max_exp_avg_var`` to (lowest, highest).
    """
    error = OPERATIONS * unit
    (beta1, beta2), eps, decay = options["betas"], options["eps"], options["weight_decay"]
    theta, g, m, s = (before[name] for name in ("theta", "grad", "exp_avg", "exp_avg_var"))
    lr, step_size, root_scale = scale_exactly(int(before["t"]), options)

    theta_error = np.zeros_like(theta)
    g = -g if options["maximize"] else g
    g_error = np.zeros_like(g)
    if decay != 0 and options["weight_decouple"]:
        fraction = (decay if lr != 0 else 0.0) if options["fixed_decay"] else lr * decay
        # 1 - fraction is rounded too, before it is multiplied by: near fraction = 1 that is an error of theta.
        theta_error = error * np.abs(theta) if lr != 0 else theta_error
        theta = theta * (1 - fraction)
    elif decay != 0:
        g_error = error * (np.abs(g) + decay * np.abs(theta)) + tiny
        g = g + decay * theta

    d = g - m
    d_error = g_error + error * (np.abs(g) + np.abs(m)) + tiny
    c = beta1 if options["residual"] == "updated" else 1.0
    residual_weight = (1 - beta2) * c * c
    m = m + (1 - beta1) * d
    m_error = (1 - beta1) * d_error + error * (np.abs(m) + np.abs(d)) + tiny
    s = beta2 * s + residual_weight * d * d + eps
    s_error = error * s + residual_weight * (2 * np.abs(d) * d_error + d_error * d_error) + OPERATIONS * tiny
    intervals = {"exp_avg": (m - m_error, m + m_error), "exp_avg_var": (np.maximum(s - s_error, 0), s + s_error)}
    if options["amsgrad"]:
        largest = before["max_exp_avg_var"]
        intervals["max_exp_avg_var"] = tuple(np.maximum(largest, bound) for bound in intervals["exp_avg_var"])
    s_low, s_high = intervals["max_exp_avg_var" if options["amsgrad"] else "exp_avg_var"]

    if step_size == 0:
        update_low = update_high = np.zeros_like(theta)
    else:
        lowest, highest = (1.0, 1.0) if root_scale is None else (np.sqrt(x) * root_scale + eps for x in (s_low, s_high))
        quotients = [bound / denominator for bound in (m - m_error, m + m_error) for denominator in (lowest, highest)]
        update_low, update_high = (step_size * f(quotients, axis=0) for f in (np.min, np.max))
        spread = error * np.maximum(np.abs(update_low), np.abs(update_high)) + tiny
        update_low, update_high = update_low - spread, update_high + spread
    if options["max_update_to_lr"] is not None:
        largest_update = options["max_update_to_lr"] * lr  # which is rounded, up or down
        update_low = np.clip(update_low, -largest_update * (1 + error), largest_update * (1 - error))
        update_high = np.clip(update_high, -largest_update * (1 - error), largest_update * (1 + error))
    low, high = theta - theta_error - update_high, theta + theta_error - update_low
    # A step at which nothing moves must leave the very bits.
    rounding = error * np.maximum(np.abs(low), np.abs(high)) + tiny if lr != 0 else 0.0
    return {"theta": (low - rounding, high + rounding), **intervals}


def scale_exactly(t: int, options: dict[str, Any]) -> tuple[float, float, float | None]:
    """Return (lr with warmup, the factor of m_t, the factor of the root of s_t) of step t, by RAdam's formulas.

    The last is ``None`` in a step of SGD. Written from the paper, apart from ``scaling.py``.
    """
    beta1, beta2 = options["betas"]
    warmup = options["warmup"] if isinstance(options["warmup"], int) else options["warmup"] * options["total_steps"]
    lr = options["lr"] * (min(1.0, t / warmup) if warmup > 0 else 1.0)
    correction1, correction2 = 1 - beta1**t, 1 - beta2**t
    if not options["rectify"]:
        return lr, lr / correction1, 1 / math.sqrt(correction2)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / correction2
    if length < 5:
        return lr, lr / correction1 if options["degenerated_to_sgd"] else 0.0, None
    numerator = (length - 4) * (length - 2) * longest
    rectification = math.sqrt(numerator / ((longest - 4) * (longest - 2) * length))
    return lr, lr * math.sqrt(correction2) * rectification / correction1, 1.0
