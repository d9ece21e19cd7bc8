"""Averages in 8 bits in the fused CUDA step: run by test_fused_cuda.py, interpreted on the CPU or on a GPU."""

import itertools

import pytest
import torch

from lightning_adabelief.optim.fused import cuda, cuda_tables
from lightning_adabelief.optim.fused.cuda import fused_adabelief_cuda
from lightning_adabelief.optim.low_precision import draw_words, mix_bits
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE, count_row, pack, read_scales, unpack
from lightning_adabelief.optim.tensors import StepTensors
from tests.optim.fused_cuda_checks import DEVICE, INTERPRETED, OPTIONS, STEPPING, Case, assert_same, take_both_steps
from tests.optim.fused_cuda_memory import LAYOUTS

ROUNDED_ELSEWHERE = 1e-3
"""The share of codes that a step may round to a neighbour of the reference's.

A last place of float32 is at most 2^-18 of a code, and m and s have an error of some.
"""

SHAPES = [(3, 576), (41, 100), (1000,), (2, 2, 128)]
"""Five blocks a row, of which the last is half; one that is no multiple of 8; a single row; two whole blocks."""


class PackedCase(Case):
    """A case whose averages are packed."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options, state_bits=8)

    def codes_and_scales(self):
        """All codes, as integers without a sign, and all scales, in the order of the averages."""
        codes, scales = [], []
        for column in (self.m, self.s, self.max_s):
            for average, param in zip(column, self.params, strict=False):
                codes.append(average[:, : count_row(param.shape)].flatten().long())
                scales.append(read_scales(average, param.shape).flatten())
        return torch.cat(codes), torch.cat(scales)


def assert_near(case, expected, steps=1):
    """After so many steps nearly all codes the same, the others one apart; scales and weights equal up to rounding."""
    (codes, scales), (wanted_codes, wanted_scales) = case.codes_and_scales(), expected.codes_and_scales()
    assert (codes - wanted_codes).abs().max() <= 1
    assert (codes != wanted_codes).float().mean() <= ROUNDED_ELSEWHERE * steps
    torch.testing.assert_close(scales, wanted_scales, rtol=1e-6, atol=0, equal_nan=True)
    for ours, theirs in zip(case.tensors()[0], expected.tensors()[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert case.steps == expected.steps


@pytest.mark.parametrize("amsgrad", [False, True])
def test_steps_are_those_of_the_reference(amsgrad):
    case = PackedCase(SHAPES, amsgrad=amsgrad, steps_taken=[0, 3, 40, 3000])
    expected = case.clone()
    for step in range(1, 5):
        take_both_steps(case, expected, weight_decay=0.1, lr=1e-3)
        assert_near(case, expected, step)


def assert_same_codes(case):
    """Check a step whose m is the gradient and s its square: nothing is rounded before it is coded."""
    expected = case.clone()
    for each in (case.fused, expected.reference):
        each(betas=(0.0, 0.0), eps=0.0, residual="previous")
    for column, wanted in zip((case.m, case.s, case.max_s), (expected.m, expected.s, expected.max_s), strict=True):
        assert torch.equal(column[0], wanted[0])


def test_the_same_averages_have_the_same_codes():
    case = PackedCase([(41, 300)], amsgrad=True)
    case.grads[0] *= torch.logspace(-20, 15, 300, device=DEVICE)
    assert_same_codes(case)


def test_numbers_halfway_between_two_codes_have_the_same_code():
    case = PackedCase([(100, 128)], amsgrad=True)
    scales = case.random((100, 1)).abs().float()
    codes = torch.arange(128, dtype=torch.int32, device=DEVICE)
    numbers = ((codes << 18) + 0x3F800000).view(torch.float32) - 1
    halfway = (numbers[1:] + numbers[:-1]) / (2 * numbers[-1]) * scales
    places = torch.randint(-2, 3, halfway.shape, generator=case.generator, dtype=torch.int32).to(DEVICE)
    case.grads[0] = torch.cat([scales, (halfway.view(torch.int32) + places).view(torch.float32)], dim=1)
    assert_same_codes(case)


def test_the_largest_of_a_block_has_the_largest_code_whatever_is_drawn():
    # Of this square the factor, rounded to the nearest, would make more than E(255), with the largest draw a 256.
    largest = torch.tensor(63487.0)
    grad = next(g for g in torch.linspace(1, 2, 100) if largest / g.square() * g.square() > largest)
    case = PackedCase([(32, 128)])
    draws = (draw_words(torch.arange(4096), mix_bits(seed + 1)) >> 13 for seed in itertools.count())
    case.rounding_seeds = [next(seed for seed, draw in enumerate(draws) if draw.max() == (1 << 19) - 1)]
    case.grads[0].fill_(grad)
    case.fused(betas=(0.0, 0.0), eps=0.0, residual="previous")  # m is the gradient, s its square
    assert (case.m[0][:, :128] == 127).all() and (case.s[0][:, :128] == 255).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("master_weight_bits", [32, 24, 16])
def test_weights_of_16_bits_are_stepped_as_the_reference_steps_them(master_weight_bits, dtype):
    case = PackedCase([(3, 576), (700,)], dtype, steps_taken=9, master_weight_bits=master_weight_bits)
    expected = case.clone()
    take_both_steps(case, expected, lr=1e-3)
    (codes, scales), (wanted_codes, wanted_scales) = case.codes_and_scales(), expected.codes_and_scales()
    assert (codes != wanted_codes).float().mean() <= ROUNDED_ELSEWHERE
    torch.testing.assert_close(scales, wanted_scales, rtol=1e-6, atol=0)
    for column in ("params", "corrections", "corrections_low"):
        for ours, theirs in zip(getattr(case, column), getattr(expected, column), strict=True):
            if ours is not None and not (column == "corrections_low" and not INTERPRETED):
                assert (ours == theirs).float().mean() > 0.98


@pytest.mark.parametrize("options", [{}, *STEPPING, dict(max_update_to_lr=0.5), dict(maximize=True)], ids=str)
def test_options_are_those_of_the_reference(options):
    case = PackedCase([(3, 200)], steps_taken=4)
    expected = case.clone()
    for step in range(1, 3):
        take_both_steps(case, expected, weight_decay=0.1, weight_decouple=False, residual="previous", **options)
        assert_near(case, expected, step)


def test_found_inf_leaves_everything_as_it_was():
    case = PackedCase([(3, 576), (1000,)], amsgrad=True, steps_taken=3)
    case.grads[0][1, 5], case.grads[1][-1] = float("inf"), float("nan")
    before = case.clone()
    case.fused(weight_decay=0.1, grad_scale=torch.tensor(4.0, device=DEVICE), found_inf=torch.ones(1, device=DEVICE))
    for column, expected in zip(case.tensors(), before.tensors(), strict=True):
        torch.testing.assert_close(column, expected, rtol=0, atol=0, equal_nan=True)


def test_gradients_are_unscaled_in_place():
    case = PackedCase([(41, 100), (2, 256)], steps_taken=3)
    scaled, expected = case.clone(), case.clone()
    scaled.grads = [grad * 1024 for grad in case.grads]
    scaled.fused(grad_scale=torch.tensor(1024.0, device=DEVICE), found_inf=torch.zeros((), device=DEVICE))
    expected.reference()
    assert_near(scaled, expected)
    torch.testing.assert_close(scaled.grads, case.grads, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
def test_a_block_with_a_gradient_that_is_not_finite_reads_as_nan():
    case = PackedCase([(2, 384)], amsgrad=True, steps_taken=3)
    case.grads[0][0, 5], case.grads[0][1, 200] = float("inf"), float("nan")
    expected = case.clone()
    case.fused()
    expected.reference()
    assert_near(case, expected)
    _, scales = case.codes_and_scales()
    assert scales.isnan().tolist() == 3 * [True, False, False, False, True, False]


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
def test_zeros_stay_zeros_and_a_maximum_stays_as_it_was():
    case = PackedCase([(2, 200)], amsgrad=True, steps_taken=3)
    pack(torch.zeros(2, 200, device=DEVICE), case.m[0], MOMENTUM)
    maximum = torch.randn(2, 200, generator=torch.Generator().manual_seed(3)).abs().to(DEVICE)
    maximum[0, 7] = 4.0  # a scale as it is
    pack(maximum, case.max_s[0], MAXIMUM)
    pack(torch.zeros(2, 200, device=DEVICE), case.s[0], VARIANCE)
    case.grads[0].zero_()
    before = case.clone()
    for _ in range(3):
        case.fused(eps=0.0)
    for column in (0, 2, 3, 4):
        assert torch.equal(case.tensors()[column][0], before.tensors()[column][0])


def test_an_s_far_below_the_largest_of_its_block_is_not_0():
    case = PackedCase([(2, 200)])
    case.grads[0].fill_(1e-3)[:, 100] = 1e6
    case.grads[0][0, 5] = 0.0
    expected = case.clone()
    case.fused(eps=0.0)
    expected.reference(eps=0.0)
    assert_near(case, expected)
    s = unpack(case.s[0], (2, 200), VARIANCE)
    assert (s > 0).sum() == 399 and s[0, 5] == 0


@pytest.mark.parametrize("param_layout", LAYOUTS)
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last"])
def test_codes_are_in_the_logical_order_whatever_the_layout(param_layout, grad_layout):
    case = PackedCase([(2, 64, 3, 3), (1000,)], torch.bfloat16, steps_taken=9, master_weight_bits=24)
    plain = case.clone()
    case.params[0] = LAYOUTS[param_layout](case.params[0])
    case.corrections[0] = LAYOUTS[param_layout](case.corrections[0])
    case.grads[0] = LAYOUTS[grad_layout](case.grads[0])
    for scale in (None, torch.tensor(2.0, device=DEVICE)):
        case.fused(grad_scale=scale)
        plain.fused(grad_scale=scale)
    for column, expected in zip(case.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(column, expected, rtol=0, atol=0)


class Counted:
    """In place of a kernel: notes each launch."""

    def __init__(self, kernel, launched):
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, grid):
        self.launched.append(self.kernel)
        return self.kernel[grid]


def test_one_call_serves_packed_and_other_averages_by_two_launches_for_each_kind(monkeypatch):
    launched = []
    kernels = scale, rule, packed_rule = cuda.scale, cuda.rule, cuda.packed_rule
    for name, kernel in zip(("scale", "rule", "packed_rule"), kernels, strict=True):
        monkeypatch.setattr(cuda, name, Counted(kernel, launched))
    packed, others = PackedCase([(3, 576), (4, 256), (0, 512)], steps_taken=9), Case([(10,), ()], steps_taken=3)
    others.rounding_seeds = [0, 0]
    expected = packed.clone(), others.clone()
    columns = zip(packed.columns(), others.columns(), strict=True)
    fused_adabelief_cuda(StepTensors(*(ours + theirs for ours, theirs in columns)), **OPTIONS)
    for each in expected:
        each.reference()
    assert launched == [scale, packed_rule, scale, rule]
    assert_near(packed, expected[0])
    assert_same(others, expected[1])


def test_a_table_tells_rows_of_another_length_apart():
    case = PackedCase([(4, 256)])
    (first,) = cuda_tables.group_tensors(case.columns()[:4], case.steps)
    columns = [tensor.view(8, 128) for tensor in (case.params[0], case.grads[0])]
    columns += [average.flatten()[: 8 * 132].view(8, 132) for average in (case.m[0], case.s[0])]
    (second,) = cuda_tables.group_tensors([[tensor] for tensor in columns], case.steps)
    assert first.table[0, 11] == 256 and second.table[0, 11] == 128
