"""The state of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_adabelief.comparison.trial import Outcome, Trial
from lightning_adabelief.comparison.worker_process import WorkerProcess


@dataclass(frozen=True)
class Progress:
    """The state of a comparison.

    Attributes:
        stages: The trials of each stage that has begun, in order.
        outcomes: By the trial's name; also of a crashed one, unless it waits or runs again.
        running: The worker of each trial that runs now, by the trial's name.
        durations: Seconds from taking a trial to its end, by the name of a trial that has an outcome.
    """

    stages: dict[str, list[Trial]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, WorkerProcess] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
