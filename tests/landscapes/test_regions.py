"""The regions of the paper's figure 1: what it says in words holds of the real optimizers."""

import pytest
import torch

from lightning_adabelief.landscapes.optimizers import make_contenders
from lightning_adabelief.landscapes.regions import REGIONS, find_loss, find_slope, measure_all_steps


@pytest.fixture(scope="module", params=[0, 1, 2])
def steps(request):
    contenders = make_contenders(["sgd", "adam", "adabelief"])
    return {each.optimizer: each.relative for each in measure_all_steps(contenders, request.param)}


def test_the_slope_is_the_losses_derivative():
    weights = torch.linspace(-6, 18, 997, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(find_loss(weights).sum(), weights)
    torch.testing.assert_close(gradient, find_slope(weights.detach()))


def test_sgd_steps_too_short_where_it_is_flat_and_too_far_in_the_narrow_valley(steps):
    assert steps["SGD"][0] < 0.5 and steps["SGD"][1] > 5


def test_adam_steps_too_short_on_the_even_slope_for_its_step_is_no_larger_than_where_it_is_flat(steps):
    taken = [relative * region.ideal_step for relative, region in zip(steps["Adam"], REGIONS, strict=True)]
    assert steps["Adam"][2] < 0.6 and taken[2] < 2 * taken[0]


def test_adabelief_is_within_a_third_of_the_ideal_in_all_regions(steps):
    assert all(2 / 3 < relative < 4 / 3 for relative in steps["AdaBelief"])
