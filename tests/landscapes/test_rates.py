"""Paths, the steps that they take, and the learning rates chosen by them."""

import math
from functools import partial

import pytest
import torch

from lightning_adabelief.landscapes.descent import descend, steps_to_stay_below
from lightning_adabelief.landscapes.functions import LANDSCAPES, find_landscape
from lightning_adabelief.landscapes.optimizers import NAMED, make_contender, make_contenders
from lightning_adabelief.landscapes.rates import (
    NEARBY_STARTS,
    RELATIVE_RATES,
    choose_rate,
    compare_on,
    draw_starts,
    list_rates,
)
from tests.landscapes.test_functions import HERE
from tests.landscapes.test_optimizers import NormScaled


def walk(landscape, maker, start, lr, steps):
    """A path by a plain loop."""
    param = torch.nn.Parameter(start.clone())
    optimizer = maker([param], lr=lr)
    points = [param.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        landscape.losses(param).backward()
        optimizer.step()
        points.append(param.detach().clone())
    return torch.stack(points)


@pytest.mark.parametrize("maker", [*NAMED.values(), NormScaled, partial(torch.optim.RMSprop, momentum=0.5)], ids=str)
def test_every_path_is_that_of_a_plain_loop(maker):
    landscape, rates = LANDSCAPES["beale"], [1e-5, 1e-2]
    starts = draw_starts(landscape, 0)[:3]
    descents = descend(landscape, make_contender(maker), starts, rates, 12)
    for r, rate in enumerate(rates):
        for s, start in enumerate(starts):
            torch.testing.assert_close(
                descents.points[:, r, s], walk(landscape, maker, start, rate, 12), equal_nan=True
            )
    torch.testing.assert_close(descents.losses, landscape.losses(descents.points).nan_to_num(math.inf, posinf=math.inf))


def test_a_path_that_diverges_has_infinite_losses_and_leaves_the_others_alone():
    landscape, sgd = LANDSCAPES["rosenbrock"], make_contender("sgd")
    starts = torch.tensor([landscape.start, landscape.minimum], dtype=torch.float64)
    descents = descend(landscape, sgd, starts, [1.0, 1e-6], 30)
    assert descents.losses[-1, 0, 0] == math.inf and not descents.losses.isnan().any()
    assert (descents.losses[:, :, 1] == 0).all() and descents.losses[-1, 1, 0] < descents.losses[0, 1, 0]


def test_a_limit_is_reached_when_the_loss_no_longer_exceeds_it():
    losses = torch.tensor([[9, 1, 9, 9.0], [1, 1, 9, 1], [9, 1, 9, math.inf], [1, 1, 9, 1], [1, 1, 9, math.nan]])
    assert steps_to_stay_below(losses, 1.0).tolist() == [3, 0, math.inf, math.inf]


def test_the_rate_chosen_is_the_soonest_by_the_median_over_starts():
    soon = torch.tensor([[9.0, 0, 0, 0, 0]]).T.expand(5, 3)
    lucky_once = torch.tensor([[9.0, 0, 0, 0, 0], [9, 9, 9, 9, 0], [9, 9, 9, 9, 0]]).T
    assert choose_rate(torch.stack([lucky_once, soon], 1), 0.5) == 1


def test_where_no_rate_reaches_the_tolerance_the_least_loss_at_the_end_decides():
    losses = torch.tensor([[9.0, 9, 9], [9, 4, 3], [9, math.inf, 3.5], [9, math.inf, 3]])
    assert choose_rate(losses[..., None], 0.5) == 2


def test_every_optimizer_has_the_same_number_of_rates_around_its_own_default():
    contenders = make_contenders([*NAMED, "torch.optim.Adagrad", partial(torch.optim.RMSprop, lr=0.3)])
    *searched, given = (list_rates(contender) for contender in contenders)
    assert {len(rates) for rates in searched} == {len(RELATIVE_RATES)} and given == [0.3]
    assert searched[3] == [0.01 * multiple for multiple in RELATIVE_RATES]


def test_the_starts_follow_the_seed_and_the_given_one_is_first():
    landscape = LANDSCAPES["l1"]
    starts = draw_starts(landscape, 0)
    assert starts.shape == (1 + 2 * NEARBY_STARTS, 2) and tuple(starts[0].tolist()) == landscape.start
    assert (starts - starts[0]).abs().max() <= 0.5
    assert torch.equal(starts, draw_starts(landscape, 0)) and not torch.equal(starts, draw_starts(landscape, 1))


def test_a_comparison_is_the_same_each_time_and_its_rates_are_inside_the_grid():
    contenders = make_contenders(list(NAMED))
    first, again = (compare_on(LANDSCAPES["inseparable-l2"], contenders, 60, 0.05, 0) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.points, other.points) and one.reached_nearby == other.reached_nearby
        assert one.reached < 60 and not one.is_at_edge and len(one.reached_nearby) == NEARBY_STARTS


def test_of_a_function_without_known_minimum_the_least_loss_found_is_0():
    landscape = find_landscape(f"{HERE}.valley", (3.0, 1.0))
    outcomes = compare_on(landscape, make_contenders(["sgd", "adam"]), 60, 0.05, 0)
    assert all(outcome.reached < 60 and outcome.excess.min() >= 0 for outcome in outcomes)
