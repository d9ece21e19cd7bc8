"""Image classification."""

from lightning_adabelief.recipes.image_classification.data import DigitsDataModule
from lightning_adabelief.recipes.image_classification.module import ImageClassifier
from lightning_adabelief.recipes.image_classification.networks import SmallCNN

__all__ = ["DigitsDataModule", "ImageClassifier", "SmallCNN"]
