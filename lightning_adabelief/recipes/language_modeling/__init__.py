"""Language modelling."""

from lightning_adabelief.recipes.language_modeling.bigram import InterpolatedBigram
from lightning_adabelief.recipes.language_modeling.data import PennTreebankDataModule, TextDataModule
from lightning_adabelief.recipes.language_modeling.module import LanguageModel
from lightning_adabelief.recipes.language_modeling.networks import AWDLSTM

__all__ = ["AWDLSTM", "InterpolatedBigram", "LanguageModel", "PennTreebankDataModule", "TextDataModule"]
