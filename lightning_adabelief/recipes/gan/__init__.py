"""Generative adversarial networks."""

from lightning_adabelief.recipes.gan.cifar import CIFAR10Images
from lightning_adabelief.recipes.gan.losses import Hinge, Wasserstein, WassersteinGP
from lightning_adabelief.recipes.gan.module import GAN
from lightning_adabelief.recipes.gan.networks import (
    Critic,
    DCGANCritic,
    DCGANGenerator,
    Generator,
    ResNetCritic,
    ResNetGenerator,
)
from lightning_adabelief.recipes.gan.pictures import Pictures
from lightning_adabelief.recipes.gan.scores import ClassifierScores, InceptionScores

__all__ = [
    "GAN",
    "CIFAR10Images",
    "ClassifierScores",
    "Critic",
    "DCGANCritic",
    "DCGANGenerator",
    "Generator",
    "Hinge",
    "InceptionScores",
    "Pictures",
    "ResNetCritic",
    "ResNetGenerator",
    "Wasserstein",
    "WassersteinGP",
]
