"""Callbacks: know the optimizer and Lightning; never a recipe."""

from lightning_adabelief.callbacks.belief_monitor import BeliefMonitor
from lightning_adabelief.callbacks.exact_resume import ExactResume
from lightning_adabelief.callbacks.resume_report import ResumeReport

__all__ = ["BeliefMonitor", "ExactResume", "ResumeReport"]
