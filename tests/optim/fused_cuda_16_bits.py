"""Numbers of 16 bits in the fused CUDA step: run by test_fused_cuda.py, interpreted on the CPU or on a GPU."""

import pytest
import torch

from lightning_adabelief.optim.low_precision import MISSING_BITS
from tests.optim.fused_cuda_checks import BLOCK, DEVICE, Case, take_both_steps


@pytest.mark.parametrize("dtype", MISSING_BITS, ids=str)
@pytest.mark.parametrize("bits", [32, 24, 16])
def test_weights_of_16_bits_are_rounded_as_the_reference_rounds_them(bits, dtype):
    case = Case([(7,), (BLOCK + 3,), (16,)], dtype, steps_taken=[0, 40, 3000], master_weight_bits=bits)
    extremes = [0.0, -0.0, 1e-5, -1e-6, 6.1e-5, 6e4, -6e4]
    case.params[0].copy_(torch.tensor(extremes, device=DEVICE))
    case.params[1][0] = 0.0  # by other hands: its correction is that of a larger weight
    if bits > 16:
        case.corrections[1].fill_(-3)
    expected = case.clone()
    for _ in range(3):
        take_both_steps(case, expected, weight_decay=0.1, lr=1e-3)
    kept = {32: torch.finfo(torch.float32), 24: torch.finfo(dtype), 16: torch.finfo(dtype)}[bits].eps
    place = 4 * kept / (256 if bits == 24 else 1)
    for actual, wanted in zip(case.tensors()[0], expected.tensors()[0], strict=True):
        torch.testing.assert_close(actual, wanted, rtol=place, atol=2.0**-24)
    same = torch.cat([(a == b).flatten() for a, b in zip(case.params, expected.params, strict=True)])
    assert same.float().mean() > 0.99  # the same draws: others would move half of the weights elsewhere


def list_averages(case):
    return [*case.m, *case.s, *case.max_s]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_averages_of_16_bits_are_stepped_as_the_reference_steps_them(amsgrad, dtype):
    bits = dict(master_weight_bits=24, state_bits=16)
    case = Case([(7,), (BLOCK + 3,), (16,)], dtype, amsgrad, steps_taken=[0, 40, 3000], **bits)
    expected = case.clone()
    for _ in range(3):
        take_both_steps(case, expected, weight_decay=0.1, lr=1e-3)
        for actual, wanted in zip(list_averages(case), list_averages(expected), strict=True):
            assert actual.dtype == torch.bfloat16
            torch.testing.assert_close(actual, wanted, rtol=2.0**-7, atol=1e-7)  # the numbers beside it
            assert (actual == wanted).float().mean() > 0.99
        for actual, wanted in zip(case.tensors()[0], expected.tensors()[0], strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
@pytest.mark.parametrize("transposed", [False, True])
def test_the_same_averages_of_16_bits_are_rounded_to_the_same_bits(transposed):
    case = Case([(40, 50)], amsgrad=True, state_bits=16)
    case.grads[0] *= torch.logspace(-20, 15, 50, device=DEVICE)
    case.grads[0][0, :4] = torch.tensor([float("inf"), float("nan"), 0.0, -float("inf")], device=DEVICE)
    if transposed:
        for column in case.columns()[:5]:
            column[0] = column[0].t().contiguous().t()
    expected = case.clone()
    for each in (case.fused, expected.reference):
        each(betas=(0.0, 0.0), eps=0.0, residual="previous")  # m is the gradient, s its square
    for actual, wanted in zip(list_averages(case), list_averages(expected), strict=True):
        assert torch.equal(actual.view(torch.int16), wanted.view(torch.int16))


def test_found_inf_leaves_averages_of_16_bits_as_they_were():
    case = Case([(BLOCK + 3,)], amsgrad=True, steps_taken=3, state_bits=16)
    case.grads[0][5] = float("inf")
    before = case.clone()
    case.fused(found_inf=torch.ones(1, device=DEVICE))
    assert all(map(torch.equal, list_averages(case), list_averages(before)))
