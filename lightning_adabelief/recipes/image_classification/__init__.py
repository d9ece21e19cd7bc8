"""Image classification."""

from lightning_adabelief.recipes.image_classification.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_adabelief.recipes.image_classification.digits import DigitsDataModule
from lightning_adabelief.recipes.image_classification.image_folder import ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.imagenet import ImageNetDataModule
from lightning_adabelief.recipes.image_classification.module import ImageClassifier
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData, SmallCNN, TorchvisionNetwork
from lightning_adabelief.recipes.image_classification.predictions import PredictionsTable
from lightning_adabelief.recipes.image_classification.pretrained import PretrainedNetwork
from lightning_adabelief.recipes.image_classification.worst_mistakes import WorstMistakes

__all__ = [
    "CIFAR100DataModule",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "ImageClassifier",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "NetworkFromData",
    "PretrainedNetwork",
    "PredictionsTable",
    "SmallCNN",
    "TorchvisionNetwork",
    "WorstMistakes",
]
