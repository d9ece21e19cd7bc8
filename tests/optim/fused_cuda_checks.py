"""What holds for the fused CUDA step: run by test_fused_cuda.py, interpreted on the CPU or on a GPU.

Not collected by itself, for Triton is interpreted or not from its first import on.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from lightning_adabelief.optim.averages import make_average, write_average
from lightning_adabelief.optim.fused import cuda, cuda_tables
from lightning_adabelief.optim.fused.cuda import fused_adabelief_cuda
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS, make_keys, make_seed, read_master
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE
from lightning_adabelief.optim.rule import single_tensor_adabelief
from lightning_adabelief.optim.scaling import step_scale
from lightning_adabelief.optim.tensors import StepTensors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = DEVICE == "cpu"
BLOCK = cuda_tables.BLOCK
OPTIONS = dict(
    lr=1e-2,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    weight_decouple=True,
    fixed_decay=False,
    rectify=True,
    degenerated_to_sgd=True,
    warmup=0,
    total_steps=None,
    residual="updated",
    maximize=False,
    max_update_to_lr=None,
)


class Case:
    """Parameters, their gradients and state; a copy to run the reference rule on."""

    def __init__(
        self, shapes, dtype=torch.float32, amsgrad=False, steps_taken=0, seed=0, master_weight_bits=32, state_bits=32
    ):
        self.generator = torch.Generator().manual_seed(seed)
        state_dtype = torch.promote_types(dtype, torch.float32)
        steps_taken = [steps_taken] * len(shapes) if isinstance(steps_taken, int) else steps_taken
        self.params = [self.random(shape).to(dtype) for shape in shapes]
        self.m = [self.random(shape).to(state_dtype) * bool(t) for shape, t in zip(shapes, steps_taken, strict=True)]
        self.s = [m * m * 0.5 for m in self.m]
        self.max_s = [s * self.random(s.shape).exp().to(s) for s in self.s] if amsgrad else []
        self.store_averages(state_bits)
        self.steps = [torch.tensor(float(t), device=DEVICE) for t in steps_taken]
        self.corrections, self.corrections_low = (
            [
                torch.zeros_like(p, dtype=part) if dtype in MISSING_BITS and master_weight_bits >= bits else None
                for p in self.params
            ]
            for part, bits in CORRECTIONS.values()
        )
        is_drawn = state_bits < 32 or (dtype in MISSING_BITS and master_weight_bits < 32)
        self.rounding_seeds = [make_seed(seed, position) for position in range(len(shapes))] if is_drawn else []
        self.new_grads()

    def store_averages(self, bits):
        """Store the averages in so many bits."""
        for name, column in ((MOMENTUM, self.m), (VARIANCE, self.s), (MAXIMUM, self.max_s)):
            for i, values in enumerate(column if bits < 32 else []):
                column[i] = make_average(values, bits, torch.float32)
                write_average(values, column[i], name)

    def random(self, shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(DEVICE)

    def new_grads(self, dtype=None):
        self.grads = [self.random(p.shape).to(dtype or p.dtype) for p in self.params]

    def new_grads_of_ones(self):
        self.grads = [torch.ones_like(p) for p in self.params]

    def columns(self):
        state = self.m, self.s, self.max_s, self.steps
        corrections = self.corrections, self.corrections_low
        return StepTensors(self.params, self.grads, *state, *corrections, self.rounding_seeds)

    def tensors(self):
        """The columns that a test compares: master weights in the place of weights of 16 bits."""
        rows = zip(self.params, self.corrections, self.corrections_low, strict=True)
        masters = [read_master(*row) if row[0].dtype in MISSING_BITS else row[0] for row in rows]
        return masters, self.grads, self.m, self.s, self.max_s, self.steps

    def clone(self):
        clone = object.__new__(type(self))
        clone.generator = self.generator
        columns = ([None if t is None else t.clone() for t in column] for column in self.columns()[:-1])
        clone.params, clone.grads, clone.m, clone.s, clone.max_s, clone.steps, *corrections = columns
        clone.corrections, clone.corrections_low = corrections
        clone.rounding_seeds = self.rounding_seeds
        return clone

    def fused(self, **options):
        fused_adabelief_cuda(self.columns(), **{**OPTIONS, **options})

    def reference(self, **options):
        for step in self.steps:
            step += 1
        keys = make_keys(self.rounding_seeds, self.steps)
        for row, step, key in zip(self.columns().rows(), self.steps, keys, strict=True):
            given = {**OPTIONS, **options}
            scale = step_scale(step.item(), **{name: given[name] for name in SCALE_OPTIONS})
            rule_options = {name: given[name] for name in RULE_OPTIONS}
            single_tensor_adabelief(*row, scale, **rule_options, rounding_key=key)


def assert_same(case, expected, ulps=4.0):
    """Equal up to rounding: within some units in the last place of the largest element."""
    for column, expected_column in zip(case.tensors(), expected.tensors(), strict=True):
        for actual, wanted in zip(column, expected_column, strict=True):
            assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
            if wanted.numel():
                error = (actual.double() - wanted.double()).abs().max().item()
                bound = ulps * torch.finfo(wanted.dtype).eps * wanted.abs().max().item()
                assert error <= bound, f"differs by {error:.3g}, {bound:.3g} is allowed"


def take_both_steps(case, expected, **options):
    case.new_grads()
    expected.grads = [grad.clone() for grad in case.grads]
    case.fused(**options)
    expected.reference(**options)


DECAYS = [
    dict(weight_decay=0.0),
    dict(weight_decay=0.1),
    dict(weight_decay=0.1, fixed_decay=True),
    dict(weight_decay=0.1, weight_decouple=False),
]
STEPPING = [
    dict(rectify=False),
    dict(rectify=True, degenerated_to_sgd=True),
    dict(rectify=True, degenerated_to_sgd=False),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("stepping", STEPPING, ids=str)
def test_every_combination_of_options_is_the_reference_rule(stepping, amsgrad, dtype):
    for decay, maximize, residual in itertools.product(DECAYS, (False, True), ("updated", "previous")):
        options = {**stepping, **decay, "maximize": maximize, "residual": residual}
        case = Case([(3, 8)], dtype, amsgrad, steps_taken=3)
        expected = case.clone()
        for _ in range(4):  # steps 4 to 7: rectification starts at 6
            case.fused(**options)
            expected.reference(**options)
        # In float64 the error is that of 1 - beta2^t, which cancels to 3 digits.
        assert_same(case, expected, ulps=4 if dtype == torch.float32 else 1e4)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
@pytest.mark.parametrize("steps_taken", [0, 3000])
@pytest.mark.parametrize("stepping", STEPPING, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_max_update_to_lr_bounds_every_weight_as_the_reference_rule_does(stepping, steps_taken, dtype):
    case = Case([(3, 8), (7,), ()], dtype, steps_taken=steps_taken)
    case.params[0].zero_()
    case.grads = [grad * 1e4 for grad in case.grads]
    case.grads[0][0, :3] = torch.tensor([1e21, float("inf"), float("nan")], device=DEVICE)
    expected, before = case.clone(), case.clone()
    options = {**stepping, "max_update_to_lr": 0.5, "warmup": 20}
    case.fused(**options)
    expected.reference(**options)
    for column, expected_column in zip(case.tensors(), expected.tensors(), strict=True):
        for actual, wanted in zip(column, expected_column, strict=True):
            tolerance = 4 * torch.finfo(wanted.dtype).eps
            torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    lr_t = OPTIONS["lr"] * min(1, (steps_taken + 1) / 20)
    for actual, start in zip(case.params[1:], before.params[1:], strict=True):
        moved = (actual.double() - start.double()).abs()
        assert (moved <= 0.5 * lr_t + torch.finfo(dtype).eps * start.abs().double()).all()


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
@pytest.mark.parametrize("steps_taken", [0, 9])
@pytest.mark.parametrize("decay", DECAYS, ids=str)
def test_at_lr_0_nothing_moves_whatever_the_gradient(decay, steps_taken):
    case = Case([(5,)], steps_taken=steps_taken)
    before = case.params[0].clone()
    case.grads = [torch.tensor([0.0, 0.5, 1e21, float("inf"), float("nan")], device=DEVICE)]
    case.fused(lr=0.0, **decay)
    assert torch.equal(case.params[0], before)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, which interprets
@pytest.mark.parametrize("stepping", STEPPING, ids=str)
def test_a_beta2_of_0_forgets_an_infinite_belief(stepping):
    case = Case([(3,)], steps_taken=9)
    case.s[0].fill_(float("inf"))
    expected = case.clone()
    case.fused(betas=(0.9, 0.0), **stepping)
    expected.reference(betas=(0.9, 0.0), **stepping)
    assert_same(case, expected)
    assert case.s[0].isfinite().all()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99), (0.0, 0.9), (0.95, 0.5), (0.9, 0.0), (0.99, 0.9999)])
@pytest.mark.parametrize("warmup", [dict(), dict(warmup=1000), dict(warmup=0.25, total_steps=400)], ids=str)
@pytest.mark.parametrize("stepping", STEPPING, ids=str)
def test_the_scalars_of_early_and_late_steps_are_those_of_step_scale(stepping, warmup, betas):
    steps = [1, 2, 3, 4, 5, 6, 7, 50, 99, 100, 999, 10_000, 1_000_000, 2**24 - 1]
    case = Case([()] * len(steps), steps_taken=[t - 1 for t in steps])
    case.fused(weight_decay=0.1, betas=betas, residual="previous", max_update_to_lr=10, **stepping, **warmup)
    (group,) = cuda_tables.group_tensors(case.columns()[:4], case.steps)
    expected = []
    for t in steps:
        scale = step_scale(t, **{"lr": 1e-2, "betas": betas, "degenerated_to_sgd": True, **stepping, **warmup})
        max_quotient = 10 * scale.lr / (scale.step_size or 1)
        expected.append([1 - 0.1 * scale.lr, scale.step_size, scale.root_scale or 0.0, max_quotient])
    expected = torch.tensor(expected, dtype=torch.float64, device=DEVICE)
    torch.testing.assert_close(group.scales[:, :4], expected, rtol=1e-6, atol=0)
    assert [step.item() for step in case.steps] == steps


numpy_rounds_exp = pytest.mark.skipif(
    INTERPRETED and np.exp(math.log(0.999)) != 0.999,
    reason="Triton is interpreted by numpy, whose exp errs in the last place before numpy 2",
)


@pytest.mark.parametrize(
    "dtype, grad_dtype",
    [
        (torch.float32, torch.float32),
        pytest.param(torch.float64, torch.float64, marks=numpy_rounds_exp),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_tensors_of_any_size_and_dtype(dtype, grad_dtype):
    shapes = [(), (0,), (1,), (7,), (8,), (0, 3), (BLOCK,), (2, BLOCK), (BLOCK - 1,), (3, BLOCK + 1), (2 * BLOCK + 8,)]
    case = Case(shapes, dtype)
    expected = case.clone()
    for _ in range(2):
        case.new_grads(grad_dtype)
        expected.grads = [g.clone() for g in case.grads]
        case.fused(weight_decay=0.1, rectify=False)
        expected.reference(weight_decay=0.1, rectify=False)
    assert_same(case, expected)


def test_one_call_serves_several_dtypes_at_different_steps():
    case, other = Case([(5,), (16,)], steps_taken=[0, 40]), Case([(16,), (9,)], torch.float64, steps_taken=[3, 7])
    half = Case([(40,), (8,), (3,)], torch.float16, steps_taken=[5, 6, 7])
    for column, *more in zip(case.columns(), other.columns(), half.columns(), strict=True):
        for tensors in more:
            column.extend(tensors)
    expected = case.clone()
    case.fused(warmup=10)
    expected.reference(warmup=10)
    assert_same(case, expected)
    assert [step.item() for step in case.steps] == [1, 41, 4, 8, 6, 7, 8]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_found_inf_leaves_everything_as_it_was(amsgrad):
    case = Case([(), (0,), (8,), (BLOCK + 3,)], amsgrad=amsgrad, steps_taken=3)
    case.grads[2][1], case.grads[3][-1] = float("inf"), float("nan")
    before = case.clone()
    case.fused(weight_decay=0.1, grad_scale=torch.tensor(4.0, device=DEVICE), found_inf=torch.ones(1, device=DEVICE))
    for column, expected in zip(case.tensors(), before.tensors(), strict=True):
        torch.testing.assert_close(column, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("found_inf", [False, True], ids=["without found_inf", "found_inf is 0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_gradients_are_unscaled_in_place(dtype, found_inf):
    case = Case([(), (8,), (BLOCK + 3,)], dtype, steps_taken=3)
    scaled, expected = case.clone(), case.clone()
    scaled.grads = [g * 1024 for g in case.grads]
    scaled.fused(
        maximize=True,
        grad_scale=torch.tensor(1024.0, device=DEVICE),
        found_inf=torch.zeros((), device=DEVICE) if found_inf else None,
    )
    expected.reference(maximize=True)
    assert_same(scaled, expected)
    torch.testing.assert_close(scaled.grads, case.grads, rtol=0, atol=0)


def test_gradients_are_left_as_they_are():
    case = Case([(8,), (BLOCK + 3,)], steps_taken=3)
    before = [g.clone() for g in case.grads]
    case.fused(weight_decay=0.1, weight_decouple=False, maximize=True)
    torch.testing.assert_close(case.grads, before, rtol=0, atol=0)


def test_a_tensor_lr_is_read_at_each_step():
    case = Case([(8,)], steps_taken=9)
    expected = case.clone()
    lr = torch.tensor(0.5, device=DEVICE)
    for value in (0.5, 0.1, 0.02):
        lr.fill_(value)
        case.fused(lr=lr)
        expected.reference(lr=value)
    assert_same(case, expected)


def test_autograd_sees_that_parameters_were_changed():
    case = Case([(8,)])
    weight = case.params[0].requires_grad_()
    loss = (weight * weight).sum()
    with torch.no_grad():
        case.fused()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("shapes", [[], [(0,)], [(0, 3), (0,)]], ids=str)
def test_without_elements_no_kernel_updates_any(shapes, monkeypatch):
    monkeypatch.setattr(cuda, "rule", None)  # a launch would be an error
    case = Case(shapes)
    case.fused()
    assert [step.item() for step in case.steps] == [1] * len(shapes)
