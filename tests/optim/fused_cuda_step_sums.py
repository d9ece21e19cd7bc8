"""Sums that the fused CUDA step takes on its way: run by test_fused_cuda.py, interpreted on the CPU or on a GPU."""

import pytest
import torch

from lightning_adabelief.optim.averages import unpack_average
from lightning_adabelief.optim.fused.cuda import fused_adabelief_cuda
from lightning_adabelief.optim.packing import MOMENTUM
from lightning_adabelief.optim.step_sums import SUMS
from lightning_adabelief.optim.tensors import StepTensors
from tests.optim.fused_cuda_checks import BLOCK, DEVICE, OPTIONS, Case
from tests.optim.fused_cuda_memory import LAYOUTS
from tests.optim.test_step_sums import CASES, sum_directly

SHAPES = [(3, 5), (), (0, 3), (2 * BLOCK + 7,), (8,), (9, 300), (0, 3)]
"""Several programs of a tensor, one, and none; with packed averages programs whose blocks are of several rows."""


class Measured:
    """A case before and after a step that takes its sums."""

    def __init__(self, case, **options):
        self.case, self.options = case, {"weight_decay": 0.0, "weight_decouple": True, "maximize": False, **options}
        self.before = [weight.clone() for weight in case.tensors()[0]]
        pairs = zip(case.m, case.params, strict=True)
        self.momenta = [unpack_average(m, param, MOMENTUM).clone() for m, param in pairs]
        self.sums = {}
        case.fused(sums=self.sums, **options)

    def check(self, rtol, rtol_of_s):
        """Check the sums of all parameters against their definitions."""
        for i, param in enumerate(self.case.params):
            weight = self.case.tensors()[0][i].clone()
            weight.grad = self.case.grads[i].to(weight.dtype)
            state = {"exp_avg_var": self.case.s[i]}
            expected = sum_directly(weight, self.before[i], self.momenta[i], state, self.options)
            found = dict(zip(SUMS, self.sums[param], strict=True))
            for name in SUMS:
                scale = (expected["used_grad_square"] * expected["momentum_square"]).sqrt()
                own_rtol = rtol_of_s if name == "exp_avg_var" else rtol
                atol = rtol * float(scale) if name == "grad_momentum" else 1e-12
                torch.testing.assert_close(
                    found[name], expected[name], rtol=own_rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
                )


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_sums_are_those_of_the_definitions(options):
    options = dict(options)
    case = Case(SHAPES, torch.float64, options.pop("amsgrad", False), steps_taken=3)
    Measured(case, **{"rectify": False, **options}).check(1e-9, 1e-9)


@pytest.mark.parametrize(
    "dtype, master_weight_bits, state_bits",
    [
        (torch.float32, 32, 32),
        (torch.float32, 32, 8),
        (torch.bfloat16, 16, 32),
        (torch.bfloat16, 24, 16),
        (torch.bfloat16, 32, 8),
        (torch.float16, 16, 8),
        (torch.float16, 24, 32),
        (torch.float16, 32, 16),
    ],
    ids=str,
)
def test_sums_are_those_of_master_weights_and_of_averages_of_fewer_bits(dtype, master_weight_bits, state_bits):
    bits = dict(master_weight_bits=master_weight_bits, state_bits=state_bits)
    measured = Measured(Case(SHAPES, dtype, steps_taken=9, **bits), weight_decay=0.1, weight_decouple=False)
    # A float32's movement is its rounded weights'; the sum of s_t is that of the numbers before they are rounded.
    measured.check(2e-4, 2e-4 if state_bits == 32 else {16: 1e-2, 8: 1e-1}[state_bits])


@pytest.mark.parametrize("state_bits", [32, 8])
def test_sums_change_nothing_and_are_the_same_each_time(state_bits):
    case = Case(SHAPES, torch.bfloat16, amsgrad=True, steps_taken=3, master_weight_bits=24, state_bits=state_bits)
    plain, again = case.clone(), case.clone()
    plain.fused(weight_decay=0.1)
    first, second = Measured(case, weight_decay=0.1), Measured(again, weight_decay=0.1)
    for column, wanted in zip(case.tensors(), plain.tensors(), strict=True):
        assert all(map(torch.equal, column, wanted))
    assert all(
        torch.equal(first.sums[one], second.sums[two]) for one, two in zip(case.params, again.params, strict=True)
    )


def test_each_parameter_of_any_kind_and_layout_has_its_own_sums():
    cases = [Case([(40,), (8,)], torch.float16), Case([(7, 9)], torch.float64), Case([(4, 256)], state_bits=8)]
    cases.append(Case([(3, 4, 2, 5)]))
    cases[-1].grads[0] = LAYOUTS["transposed"](cases[-1].grads[0])
    cases[-1].params[0] = LAYOUTS["with gaps"](cases[-1].params[0])
    for case in cases:
        case.rounding_seeds = [0] * len(case.params)
    befores = [case.clone() for case in cases]
    columns = zip(*(case.columns() for case in cases), strict=True)
    sums = {}
    fused_adabelief_cuda(StepTensors(*(sum(map(list, column), []) for column in columns)), sums=sums, **OPTIONS)
    for case, before in zip(cases, befores, strict=True):
        expected = Measured(before)
        for param, same in zip(case.params, before.params, strict=True):
            torch.testing.assert_close(sums[param], expected.sums[same], rtol=1e-6, atol=0)


def test_step_that_only_the_device_may_skip_has_no_sums():
    sums = {}
    Case([(8,)]).fused(found_inf=torch.zeros((), device=DEVICE), sums=sums)
    assert not sums
