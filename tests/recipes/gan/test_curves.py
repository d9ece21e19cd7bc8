"""The curve of the Fréchet distance."""

import math

import pytest
import torch

from lightning_adabelief.recipes.gan.curves import Validation, draw_distances, find_best


def validations(*distances):
    return [
        Validation(number + 1, 10 * number + 10, {"average": value, "plain": 9.0})
        for number, value in enumerate(distances)
    ]


def test_the_best_is_the_first_of_the_least_monitored_distance():
    assert find_best(validations(3.0, 2.0, math.nan, 2.0)).epoch == 2
    assert find_best(validations(math.nan, math.inf)) is None
    assert find_best([]) is None


@pytest.mark.parametrize("distances", [(5.0, 2.0), (5.0,), (math.nan, 0.0)])
def test_a_curve_is_drawn_with_and_without_samples_whatever_was_measured(distances):
    references = {"untrained": 50.0, "real images": 0.0}
    samples = torch.zeros(3, 80, 80, dtype=torch.uint8)
    alone = draw_distances(validations(*distances), "frechet_digits", references, None)
    assert alone.dtype == torch.uint8
    if find_best(validations(*distances)) is not None:
        beside = draw_distances(validations(*distances), "frechet_digits", references, samples)
        assert beside.shape[2] > alone.shape[2]
