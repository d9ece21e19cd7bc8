"""The optimizer. Knows torch; never Lightning, never a recipe."""

from lightning_adabelief.optim.adabelief import AdaBelief

__all__ = ["AdaBelief"]
