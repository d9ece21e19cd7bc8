"""The paper's figure 1 on one weight: how SGD's, Adam's and AdaBelief's steps compare."""

import pytest
import torch

from lightning_adabelief import AdaBelief

LR = 1e-3


def mean_step(make, grads):
    """Mean distance moved in the last 100 steps, in units of the learning rate."""
    param = torch.nn.Parameter(torch.zeros(()).double())
    optimizer = make([param])
    moved = []
    for g in grads:
        before = param.item()
        param.grad = torch.tensor(g).double()
        optimizer.step()
        moved.append(abs(param.item() - before) / LR)
    return sum(moved[-100:]) / 100


def steps(grads):
    return (
        mean_step(lambda p: torch.optim.SGD(p, lr=LR), grads),
        mean_step(lambda p: torch.optim.Adam(p, lr=LR, eps=1e-16), grads),
        mean_step(lambda p: AdaBelief(p, lr=LR, rectify=False), grads),
    )


def test_region_1_small_gradient_in_a_flat_valley_adabelief_is_adam_beyond_sgd():
    sgd, adam, adabelief = steps([1e-4 * (-1) ** t for t in range(2000)])
    assert adabelief == pytest.approx(adam, rel=0.15)
    assert min(adam, adabelief) > 100 * sgd


def test_region_2_steep_and_sharply_curved_adabelief_is_adam_below_sgd():
    sgd, adam, adabelief = steps([100.0 * (-1) ** t for t in range(2000)])
    assert adabelief == pytest.approx(adam, rel=0.15)
    assert max(adam, adabelief) < sgd / 100


def test_region_3_large_gradient_with_small_curvature_adabelief_beyond_sgd_beyond_adam():
    sgd, adam, adabelief = steps([3.0 + 0.01 * (-1) ** t for t in range(2000)])
    assert adabelief > 2 * sgd
    assert sgd > 2 * adam
