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


@pytest.mark.parametrize("size", [8, 48, 64, 128])
def test_networks_that_wait_for_the_size_are_those_that_are_given_it(size):
    def make(given):
        torch.manual_seed(0)
        generator = DCGANGenerator(given, width=1, noise_size=4, num_classes=3)
        return generator, DCGANCritic(given, width=1, spectral_norm=True, num_classes=3)

    waiting = make(None)
    assert not any(network.is_complete for network in waiting)
    torch.manual_seed(0)
    made = make(size)
    for network, other in zip(waiting, made, strict=True):
        network.complete(size)
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        assert shapes == {name: value.shape for name, value in other.state_dict().items()}
    generator, critic = waiting
    labels = torch.tensor([0, 2])
    assert critic(generator(torch.randn(2, 4), labels), labels).shape == (2,)


@pytest.mark.parametrize(("size", "halvings"), [(8, 0), (32, 2), (48, 2), (64, 3), (128, 4)])
def test_sn_gans_critic_halves_images_until_8_to_15_pixels_are_left(size, halvings):
    critic = ResNetCritic(width=2, blocks=None, halvings=None)
    critic.complete(size)
    assert [block.halves for block in critic.blocks] == [True] * halvings + [False] * 2
    assert 8 <= size / 2**halvings < 16
    assert critic(torch.rand(2, 3, size, size)).shape == (2,)


def test_a_network_becomes_conditional_after_it_is_made():
    for network in (DCGANGenerator(8, width=2, noise_size=4), ResNetCritic(width=2), DCGANCritic(8, width=2)):
        network.condition_on(3)
        assert network.num_classes == network.embedding.num_embeddings == 3
