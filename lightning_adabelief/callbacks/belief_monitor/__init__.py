"""The callback that logs, layer by layer, what AdaBelief believes."""

from lightning_adabelief.callbacks.belief_monitor.monitor import BeliefMonitor

__all__ = ["BeliefMonitor"]
