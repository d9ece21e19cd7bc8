"""Steps whose gradient is not finite, as the tracker counts them."""

import math

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.callbacks.belief_monitor.nonfinite import ENTRIES_LOOKED_AT
from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker


def count_step(is_measured, **options):
    """Take a step on two layers, of which the last entry of the second has a gradient of NaN."""
    params = [torch.nn.Parameter(torch.ones(3, ENTRIES_LOOKED_AT)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones_like(param)
    params[1].grad[-1, -1] = math.nan
    optimizer = AdaBelief(params, **options)
    tracker = OptimizerTracker("AdaBelief", optimizer)
    if is_measured:
        tracker.prepare_step()
    optimizer.step()
    tracker.count_step()
    return tracker


def test_of_a_fused_step_that_is_measured_all_of_each_gradient_is_looked_at():
    tracker = count_step(is_measured=True, fused=True)
    param, step = tracker.first_nonfinite()
    assert param is tracker.parameters()[1]
    assert (tracker.nonfinite_steps, step) == (1, 1)


@pytest.mark.parametrize(("is_measured", "options"), [(False, {"fused": True}), (True, {"foreach": True})], ids=str)
def test_of_other_steps_the_first_rows_are_looked_at(is_measured, options):
    tracker = count_step(is_measured, **options)
    assert (tracker.nonfinite_steps, tracker.first_nonfinite()) == (0, None)
