"""Moved to :mod:`lightning_adabelief.beliefs.elementwise`; this name keeps working for a while."""

import warnings

from lightning_adabelief.beliefs.elementwise import *  # noqa: F403

warnings.warn(
    "lightning_adabelief.optim.belief is now lightning_adabelief.beliefs.elementwise", DeprecationWarning, stacklevel=2
)
