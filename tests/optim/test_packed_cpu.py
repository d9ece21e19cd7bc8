"""The CPU kernel on averages in 16 and 8 bits: the numbers of the reference, whatever shapes, dtypes and threads."""

import itertools
import math

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.averages import is_coded, make_average, read_average
from lightning_adabelief.optim.fused import cpu, fused_adabelief
from lightning_adabelief.optim.low_precision import CORRECTIONS, read_master
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE, count_row, is_packed, read_scales
from lightning_adabelief.optim.tensors import StepTensors

BITS = [16, 8]
NAMES = (MOMENTUM, VARIANCE, MAXIMUM)
SHAPES = [(16, 576), (41, 100), (4099,), (9, 8, 9, 9), (3, 4)]
"""Rows of whole blocks and a half, of a short one, a single row, rows of an odd length; the last keeps 32 bits."""

OPTIONS = [
    dict(),
    dict(amsgrad=True, rectify=False, weight_decay=0.1),
    dict(weight_decay=0.1, weight_decouple=False, maximize=True),
    dict(rectify=False, max_update_to_lr=0.5, residual="previous", betas=(0.0, 0.9)),
    dict(eps=1e-6, amsgrad=True, degenerated_to_sgd=False),
]

WEIGHTS = [(torch.float32, 32), *itertools.product([torch.bfloat16, torch.float16], [32, 24, 16])]
"""Dtypes, and the bits of master weights."""

CASES = list(itertools.product(WEIGHTS, OPTIONS))
CASES = CASES[: len(OPTIONS)] + CASES[len(OPTIONS) :: 3]
"""Every option with float32 weights, and each with weights of 16 bits of one kind or the other."""


def make_params(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_grads(params, t):
    generator = torch.Generator().manual_seed(1000 + t)
    for i, param in enumerate(params):
        scale = 10.0 ** torch.randint(-3, 1, param.shape, generator=generator)
        grad = (torch.randn(param.shape, generator=generator) * scale).to(param.dtype)
        param.grad = grad if i != 1 or t >= 2 else None  # the second is two steps behind the others


def train(params, steps=4, **options):
    optimizer = AdaBelief(params, fused=True, **options)
    for t in range(steps):
        set_grads(params, t)
        optimizer.step()
    return optimizer


def list_tensors(optimizer):
    """Return all weights and all tensors of the state."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [*params, *(value for param in params for value in optimizer.state[param].values())]


def assert_identical(first, second):
    for ours, theirs in zip(list_tensors(first), list_tensors(second), strict=True):
        assert torch.equal(ours, theirs)


def read_codes(average, shape):
    """Return the bytes of a packed average without padding and scales, or the bits of a bfloat16, as integers."""
    if is_packed(average):
        return average[:, : count_row(shape)].int().view(shape)
    return average.view(torch.int16).int()


@pytest.fixture
def no_fallback(monkeypatch):
    """Fails the test if the kernel does not serve a parameter."""

    def refuse(*args, **kwargs):
        raise AssertionError("the kernel did not serve a parameter")

    monkeypatch.setattr(cpu, "single_tensor_adabelief", refuse)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("weights", "options"), CASES, ids=str)
def test_each_step_is_the_references(weights, options, bits):
    dtype, master = weights
    options = options | dict(state_bits=bits, master_weight_bits=master, lr=1e-2)
    ours, theirs = make_params(dtype), make_params(dtype)
    our_optimizer, their_optimizer = AdaBelief(ours, fused=True, **options), AdaBelief(theirs, foreach=False, **options)
    for t in range(7):  # of which the fifth and later are rectified
        for optimizer, params in ((our_optimizer, ours), (their_optimizer, theirs)):
            set_grads(params, t)
            optimizer.step()
        for our, their in zip(ours, theirs, strict=True):
            our_state, their_state = our_optimizer.state[our], their_optimizer.state[their]
            if not our_state:
                continue
            assert_close_weights(our, our_state, their, their_state, master)
            for name in filter(our_state.__contains__, NAMES):
                if is_coded(our_state[name]):
                    assert_close_averages(our_state[name], their_state[name], our.shape, name)
            with torch.no_grad():  # so that a difference is of one step
                our.copy_(their)
                for name, value in their_state.items():
                    our_state[name].copy_(value)


def assert_close_weights(our, our_state, their, their_state, master):
    if master == 32:
        if our.dtype != torch.float32:
            our, their = (
                read_master(param, *map(state.get, CORRECTIONS))
                for param, state in ((our, our_state), (their, their_state))
            )
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-7)
    else:  # rounded stochastically, by the same draws
        torch.testing.assert_close(our, their, rtol=2 * torch.finfo(our.dtype).eps, atol=1e-7)
        assert (our != their).float().mean() < 1e-3


def assert_close_averages(ours, theirs, shape, name):
    if is_packed(ours):
        torch.testing.assert_close(read_scales(ours, shape), read_scales(theirs, shape), rtol=1e-6, atol=0)
    difference = (read_codes(ours, shape) - read_codes(theirs, shape)).abs()
    assert (difference > 0).float().mean() < 1e-3  # the averages differ in their last place
    ours, theirs = (read_average(each, shape, name) for each in (ours, theirs))
    assert ((difference <= 1) | ((ours - theirs).abs() <= 1e-6 * theirs.abs().max())).all()


@pytest.mark.parametrize("bits", BITS)
def test_float32_gradients_of_16_bit_weights_are_used_as_they_are(bits, no_fallback):
    shape = (16, 300)
    generator = torch.Generator().manual_seed(0)
    start, grad = (torch.randn(shape, generator=generator).bfloat16() for _ in range(2))
    defaults = AdaBelief([nn.Parameter(start)]).defaults
    options = {name: defaults[name] for name in (*RULE_OPTIONS, *SCALE_OPTIONS)}
    columns = []
    for dtype in (torch.bfloat16, torch.float32):
        m, s = (make_average(start, bits, torch.float32) for _ in range(2))
        param, step = start.clone(), torch.zeros(())
        for _ in range(3):
            tensors = StepTensors([param], [grad.to(dtype)], [m], [s], [], [step], [None], [None], [7])
            fused_adabelief(tensors, **options)
        columns.append((param, m, s))
    assert all(map(torch.equal, *columns)) and not torch.equal(columns[0][0], start)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_run_is_the_same_to_the_bit_with_any_number_of_threads(dtype, bits, no_fallback):
    shapes = [*SHAPES, (500, 700), (200, 130)]  # more than a thread's share, with short blocks in each row
    options = dict(state_bits=bits, amsgrad=True, master_weight_bits=16, rectify=False)
    before, optimizers = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            optimizers.append(train(make_params(dtype, shapes), **options))
    finally:
        torch.set_num_threads(before)
    assert_identical(optimizers[0], optimizers[1])
    assert_identical(optimizers[1], optimizers[2])


def test_a_parameter_in_another_order_is_stepped_by_the_rule_with_the_same_codes():
    shape = (16, 8, 6, 7)
    optimizers = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        (param,) = make_params(shapes=[shape])
        optimizer = AdaBelief([param], fused=True, state_bits=8)
        with torch.no_grad():
            param.data = param.to(memory_format=memory_format)
        for t in range(3):
            set_grads([param], t)
            param.grad = param.grad.to(memory_format=memory_format)
            optimizer.step()
        optimizers.append((param, optimizer.state[param]))
    (param, state), (moved, its_state) = optimizers
    torch.testing.assert_close(param, moved, rtol=1e-5, atol=1e-6)
    assert (state[VARIANCE] != its_state[VARIANCE]).float().mean() < 0.02


def test_averages_in_16_bits_are_laid_out_as_their_parameter_and_served_by_the_kernel(no_fallback):
    param = nn.Parameter(torch.randn(16, 8, 6, 7).to(memory_format=torch.channels_last))
    plain = nn.Parameter(param.detach().clone())
    optimizer, expected = AdaBelief([param], fused=True, state_bits=16), AdaBelief([plain], state_bits=16)
    for t in range(3):
        for each, own in ((optimizer, param), (expected, plain)):
            set_grads([own], t)
            own.grad = own.grad.to(memory_format=torch.channels_last)
            each.step()
    assert optimizer.state[param][VARIANCE].stride() == param.stride()
    torch.testing.assert_close(param, plain, rtol=1e-6, atol=1e-7)
    assert (optimizer.state[param][VARIANCE] != expected.state[plain][VARIANCE]).float().mean() < 1e-3


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_grad_scale_divides_the_gradient_and_writes_it_back(dtype, bits, no_fallback):
    scaled, plain = make_params(dtype), make_params(dtype)
    optimizer, expected = (AdaBelief(params, fused=True, state_bits=bits) for params in (scaled, plain))
    for params in (scaled, plain):
        set_grads(params, 2)
    for param in scaled:
        param.grad.mul_(8)
    optimizer.grad_scale = torch.tensor(8.0)
    optimizer.step()
    expected.step()
    assert_identical(optimizer, expected)
    assert all(torch.equal(ours.grad, theirs.grad) for ours, theirs in zip(scaled, plain, strict=True))


@pytest.mark.parametrize("bits", BITS)
def test_a_block_that_is_not_finite_reads_as_nan_and_others_are_as_ever(bits, no_fallback):
    (param,), (undisturbed,) = make_params(shapes=[(32, 300)]), make_params(shapes=[(32, 300)])
    optimizer, expected = (AdaBelief([p], fused=True, state_bits=bits, amsgrad=True) for p in (param, undisturbed))
    bad = {0: math.nan, 130: math.inf, 299: -math.nan}
    for each in (param, undisturbed):
        set_grads([each], 0)
    for place, value in bad.items():
        param.grad[3, place] = value
    optimizer.step()
    expected.step()
    for name in NAMES:
        average, other = (
            read_average(each.state[p][name], p.shape, name)
            for each, p in ((optimizer, param), (expected, undisturbed))
        )
        assert not average[3, list(bad) if bits == 16 else slice(None)].isfinite().any()
        average[3] = other[3]
        assert torch.equal(average, other)
    assert (param != undisturbed).nonzero().tolist() == [[3, place] for place in bad]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [1e-14, 1e-3, 1e12])
def test_zeros_stay_zeros_and_the_smallest_s_has_a_code_at_any_size(size, bits, no_fallback):
    param = nn.Parameter(torch.zeros(32, 200))
    optimizer = AdaBelief([param], fused=True, state_bits=bits, eps=0.0, rectify=False)
    param.grad = torch.zeros(32, 200)
    param.grad[:, ::2] = size
    param.grad[:, 2::4] = size * (1e-5 if bits == 8 else 1e-4)  # the smallest bfloat16 is 9e-41
    optimizer.step()
    state = optimizer.state[param]
    m, s = (read_average(state[name], param.shape, name) for name in (MOMENTUM, VARIANCE))
    assert (m[:, 1::2] == 0).all() and (s[:, 1::2] == 0).all() and (s[:, ::2] > 0).all()
    tolerance = 1e-5 if bits == 8 else 2**-7  # the largest of a block is exact
    torch.testing.assert_close(m[:, ::4], torch.full((32, 50), 0.1 * size), rtol=tolerance, atol=0)
    torch.testing.assert_close(s[:, ::4], torch.full((32, 50), 0.001 * (0.9 * size) ** 2), rtol=tolerance, atol=0)
    assert param[:, ::2].isfinite().all()


def take_step_of_its_gradient(grad, **switches):
    """Take a step whose m is the gradient and s its square: nothing is rounded before it is coded."""
    param = nn.Parameter(torch.zeros_like(grad))
    options = dict(betas=(0.0, 0.0), eps=0.0, residual="previous", amsgrad=True, rectify=False)
    optimizer = AdaBelief([param], state_bits=8, **options, **switches)
    param.grad = grad
    optimizer.step()
    return optimizer.state[param]


def test_numbers_halfway_between_two_codes_have_the_same_code():
    generator = torch.Generator().manual_seed(0)
    scales = torch.randn(100, 1, generator=generator).abs()
    numbers = ((torch.arange(128, dtype=torch.int32) << 18) + 0x3F800000).view(torch.float32) - 1
    halfway = (numbers[1:] + numbers[:-1]) / (2 * numbers[-1]) * scales
    places = torch.randint(-2, 3, halfway.shape, generator=generator, dtype=torch.int32)
    grad = torch.cat([scales, (halfway.view(torch.int32) + places).view(torch.float32)], dim=1)
    ours, theirs = take_step_of_its_gradient(grad, fused=True), take_step_of_its_gradient(grad, foreach=False)
    assert all(torch.equal(ours[name], theirs[name]) for name in NAMES)


@pytest.mark.parametrize("switches", [dict(fused=True), dict(foreach=False)], ids=str)
def test_the_largest_of_a_block_has_no_code_above_the_largest_whatever_is_drawn(switches):
    # Of this square the factor, rounded to the nearest, would make more than E(255), and with the largest draw a 256,
    # of which a byte holds 0.
    largest = torch.tensor(63487.0)
    size = next(g for g in torch.linspace(1, 2, 100) if largest / g.square() * g.square() > largest)
    state = take_step_of_its_gradient(size.expand(8192, 128).clone(), **switches)
    assert (state[MOMENTUM][:, :128] == 127).all() and (state[VARIANCE][:, :128] >= 254).all()
