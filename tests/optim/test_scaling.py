"""Warmup and rectification as functions of the step."""

import pytest
import torch

from lightning_adabelief.optim.scaling import mean_step_factor, rectification, step_scale, warmup_factor

ADAPTIVE = dict(lr=0.1, betas=(0.9, 0.999), rectify=False, degenerated_to_sgd=True)


@pytest.mark.parametrize(("step", "expected"), [(6, 0.026), (100, 0.215), (1000, 0.645), (5000, 0.983)])
def test_rectification_has_radams_values(step, expected):
    assert rectification(step, 0.999) == pytest.approx(expected, abs=5e-4)


def test_rectification_is_undefined_for_the_first_five_steps_then_grows_towards_one():
    values = [rectification(t, 0.999) for t in range(1, 20000)]
    assert values[:5] == [0.0] * 5
    assert values[5:] == sorted(values[5:]) and 0 < values[5] and 0.999 < values[-1] < 1


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.6, 2 / 3])
def test_an_average_too_short_is_never_rectified(beta2):
    assert rectification(1000, beta2) == 0


def test_warmup_grows_linearly_to_one_and_stays():
    assert [warmup_factor(t, 4) for t in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [warmup_factor(t, 0.5, total_steps=8) for t in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup_factor(1, 0) == 1


def test_step_scale_says_which_step_is_taken():
    assert step_scale(1, **ADAPTIVE).root_scale == pytest.approx(0.001**-0.5)
    sgd = step_scale(1, **ADAPTIVE | dict(rectify=True))
    assert sgd.root_scale is None and sgd.step_size == pytest.approx(0.1 / 0.1)
    none = step_scale(1, **ADAPTIVE | dict(rectify=True, degenerated_to_sgd=False))
    assert none.root_scale is None and none.step_size == 0
    assert step_scale(2, **ADAPTIVE, warmup=8).lr == pytest.approx(0.025)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("degenerated_to_sgd", [False, True])
@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("beta2", [0.0, 0.5, 2 / 3, 0.7, 0.999, 0.99999])
def test_a_tensor_of_steps_gives_what_each_number_does(rectify, degenerated_to_sgd, warmup, beta2):
    options = dict(rectify=rectify, degenerated_to_sgd=degenerated_to_sgd, warmup=warmup)
    numbers = dict(lr=0.01, betas=(0.9, beta2))
    tensors = [torch.tensor(value, dtype=torch.float64) for value in (0.01, 0.9, beta2)]
    steps = [1, 2, 3, 4, 5, 6, 7, 8, 100, 100_000]
    for given in (numbers, dict(lr=tensors[0], betas=(tensors[1], tensors[2]))):
        scales = step_scale(torch.tensor(steps, dtype=torch.float64), **given, **options)
        for i, step in enumerate(steps):
            expected = step_scale(step, **numbers, **options)
            assert scales.bias_correction1[i].item() == pytest.approx(expected.bias_correction1, rel=1e-12)
            assert scales.step_size[i].item() == pytest.approx(expected.step_size, rel=1e-9)
            assert scales.root_scale[i].item() == pytest.approx(expected.root_scale or 0, rel=1e-9)
            assert torch.as_tensor(scales.lr).expand(len(steps))[i].item() == pytest.approx(expected.lr, rel=1e-6)


MEAN_RECTIFICATION = [(252, 0.23), (690, 0.37), (1_000, 0.44), (2_000, 0.60), (5_000, 0.80), (10_000, 0.90)]


@pytest.mark.parametrize(("total_steps", "mean"), MEAN_RECTIFICATION)
def test_mean_step_factor_is_the_mean_of_r_t_over_the_run(total_steps, mean):
    by_step = sum(rectification(step, 0.999) for step in range(1, total_steps + 1)) / total_steps
    assert mean_step_factor(total_steps) == pytest.approx(by_step, abs=1e-9)
    assert mean_step_factor(total_steps) == pytest.approx(mean, abs=0.006)


def test_mean_step_factor_includes_the_warmup_and_is_1_without_either():
    assert mean_step_factor(100, rectify=False, warmup=0) == 1.0
    assert mean_step_factor(100, rectify=False, warmup=0.1) == pytest.approx((5.5 + 90) / 100)
    both = sum(rectification(t, 0.99) * min(1, t / 10) for t in range(1, 101)) / 100
    assert mean_step_factor(100, beta2=0.99, warmup=10) == pytest.approx(both, abs=1e-9)


def test_mean_step_factor_of_a_long_run_is_sampled():
    exact = sum(min(1.0, t / 250_000) for t in range(1, 1_000_001)) / 1_000_000
    assert mean_step_factor(1_000_000, rectify=False, warmup=250_000) == pytest.approx(exact, abs=1e-5)
