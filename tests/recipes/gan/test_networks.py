"""Generators and critics: their shapes and their classes."""

import pytest
import torch

from lightning_adabelief.recipes.gan import (
    DCGANCritic,
    DCGANGenerator,
    ResNetCritic,
    ResNetGenerator,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (DCGANGenerator(16, 4, 3, 8, 4, num_classes=10), DCGANCritic(16, 4, 3, 4, num_classes=10)),
        lambda: (ResNetGenerator(16, 4, 3, 8, 4, num_classes=10), ResNetCritic(3, 4, num_classes=10)),
    ],
    ids=["DCGAN", "ResNet"],
)
def test_conditional_networks_look_at_the_class(make):
    torch.manual_seed(0)
    generator, critic = make()
    noise = torch.randn(10, 8)
    labels = torch.arange(10)
    generator.eval(), critic.eval()
    images = generator(noise, labels)
    assert images.shape == (10, 3, 16, 16) and images.abs().max() <= 1
    assert not torch.equal(images, generator(noise, labels.flip(0)))
    scores = critic(images, labels)
    assert scores.shape == (10,) and not torch.equal(scores, critic(images, labels.flip(0)))


def test_an_image_size_that_doubling_cannot_reach_is_an_error():
    with pytest.raises(ValueError, match="image_size: 30. Give 4, 5, 6 or 7 times a power of 2, such as 28 or 32"):
        DCGANGenerator(image_size=30)
    assert DCGANGenerator(28, base_size=7, width=4)(torch.randn(2, 128)).shape == (2, 3, 28, 28)
