"""Statistics of an optimizer's state, in pure torch."""

from lightning_adabelief.beliefs.measure import Beliefs, measure

__all__ = ["Beliefs", "measure"]
