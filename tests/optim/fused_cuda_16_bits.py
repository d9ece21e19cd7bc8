"""Weights of 16 bits in the fused CUDA step: run by test_fused_cuda.py, interpreted on the CPU or on a GPU."""

import pytest
import torch

from lightning_adabelief.optim.low_precision import MISSING_BITS
from tests.optim.fused_cuda_checks import BLOCK, DEVICE, Case


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
        case.new_grads()
        expected.grads = [g.clone() for g in case.grads]
        case.fused(weight_decay=0.1, lr=1e-3)
        expected.reference(weight_decay=0.1, lr=1e-3)
    kept = {32: torch.finfo(torch.float32), 24: torch.finfo(dtype), 16: torch.finfo(dtype)}[bits].eps
    place = 4 * kept / (256 if bits == 24 else 1)
    for actual, wanted in zip(case.tensors()[0], expected.tensors()[0], strict=True):
        torch.testing.assert_close(actual, wanted, rtol=place, atol=2.0**-24)
    same = torch.cat([(a == b).flatten() for a, b in zip(case.params, expected.params, strict=True)])
    assert same.float().mean() > 0.99  # the same draws: others would move half of the weights elsewhere
