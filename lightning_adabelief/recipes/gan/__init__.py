"""Generative adversarial networks."""

from lightning_adabelief.recipes.gan.cifar import CIFAR10Images
from lightning_adabelief.recipes.gan.classifier_scores import ClassifierScores
from lightning_adabelief.recipes.gan.dcgan import DCGANCritic, DCGANGenerator
from lightning_adabelief.recipes.gan.folder import FolderImages
from lightning_adabelief.recipes.gan.inception_scores import InceptionScores
from lightning_adabelief.recipes.gan.losses import Hinge, Wasserstein, WassersteinGP
from lightning_adabelief.recipes.gan.module import GAN
from lightning_adabelief.recipes.gan.networks import Critic, Generator
from lightning_adabelief.recipes.gan.pictures import Pictures
from lightning_adabelief.recipes.gan.random_scores import RandomFeatureScores, best_available_scores
from lightning_adabelief.recipes.gan.sngan import ResNetCritic, ResNetGenerator

__all__ = [
    "GAN",
    "CIFAR10Images",
    "ClassifierScores",
    "Critic",
    "DCGANCritic",
    "DCGANGenerator",
    "FolderImages",
    "Generator",
    "Hinge",
    "InceptionScores",
    "Pictures",
    "RandomFeatureScores",
    "ResNetCritic",
    "ResNetGenerator",
    "best_available_scores",
    "Wasserstein",
    "WassersteinGP",
]
