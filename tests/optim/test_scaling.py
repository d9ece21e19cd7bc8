"""Warmup and rectification as functions of the step."""

import pytest
import torch

from lightning_adabelief.optim.scaling import rectification, step_scale, warmup_factor

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
