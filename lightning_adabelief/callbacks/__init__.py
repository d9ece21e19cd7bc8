"""Callbacks: know the optimizer and Lightning; never a recipe."""

from lightning_adabelief.callbacks.belief_monitor import BeliefMonitor

__all__ = ["BeliefMonitor"]
