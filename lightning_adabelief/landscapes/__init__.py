"""Functions of two weights, and the ways that optimizers take down them."""

from lightning_adabelief.landscapes.experiment import Comparison, run
from lightning_adabelief.landscapes.functions import LANDSCAPES, Landscape
from lightning_adabelief.landscapes.rates import Outcome

__all__ = ["LANDSCAPES", "Comparison", "Landscape", "Outcome", "run"]
