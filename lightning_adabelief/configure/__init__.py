"""Lightning-aware construction of the optimizer. Knows ``optim`` and Lightning; never a recipe."""

from lightning_adabelief.configure.build import configure_adabelief
from lightning_adabelief.configure.callables import build_optimizer
from lightning_adabelief.configure.configured import ConfiguredAdaBelief
from lightning_adabelief.configure.run_length import optimizer_steps

__all__ = ["ConfiguredAdaBelief", "build_optimizer", "configure_adabelief", "optimizer_steps"]
