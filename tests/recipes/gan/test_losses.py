"""The losses, by hand, and the constraints on the critic."""

import pytest
import torch
from torch import nn

from lightning_adabelief.recipes.gan import (
    Hinge,
    Wasserstein,
    WassersteinGP,
)
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.recipes.gan.small_gan import make_gan, make_trainer


def test_weights_are_clipped_after_each_step_of_the_critic(tmp_path):
    gan = make_gan(Wasserstein(clip=0.02))
    make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(gan, DigitsDataModule())
    assert max(param.detach().abs().max().item() for param in gan.critic.parameters()) == pytest.approx(0.02)
    assert max(param.detach().abs().max().item() for param in gan.generator.parameters()) > 0.02


def test_the_gradient_penalty_is_that_of_the_slope():
    """A linear critic of slope 3 everywhere: (3 - 1)^2, times the weight."""
    slope = torch.zeros(4 * 4)
    slope[5] = 3.0
    penalty = WassersteinGP(weight=10.0).penalty(
        lambda images: images.flatten(1) @ slope,
        torch.rand(6, 1, 4, 4),
        torch.rand(6, 1, 4, 4),
        torch.Generator().manual_seed(0),
    )
    assert penalty.item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)


def test_the_gradient_penalty_is_in_float32_under_autocast():
    dtypes = []

    class Spy(nn.Linear):
        def forward(self, images):
            scores = super().forward(images.flatten(1))
            dtypes.append(scores.dtype)
            return scores

    images = torch.rand(6, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        WassersteinGP().penalty(Spy(16, 1), images, images.bfloat16(), torch.Generator())
    assert dtypes == [torch.float32]


def test_the_hinge_loss_leaves_alone_what_is_far_enough():
    loss = Hinge().critic(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))
    assert loss.item() == pytest.approx(0.25 + 0.5)
