"""Moved to :mod:`lightning_adabelief.beliefs.layers`; this name keeps working for a while."""

import warnings

from lightning_adabelief.beliefs.layers import *  # noqa: F403
from lightning_adabelief.beliefs.sums import *  # noqa: F403

warnings.warn(
    "lightning_adabelief.optim.statistics is now lightning_adabelief.beliefs.layers", DeprecationWarning, stacklevel=2
)
