"""A trial of a comparison, and what came of it: plain data that a queue and a file can keep."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["finished", "diverged", "collapsed", "crashed"]
"""Of an outcome: ``diverged`` means that a loss or metric was not finite, ``collapsed`` that the chosen checkpoint
is no better than the untrained model. Both are results; ``crashed`` is an error."""


@dataclass(frozen=True)
class Trial:
    """One training, with one optimizer, learning rate, weight decay and seed.

    Attributes:
        name: Unique within the comparison; also the name of its folder.
        stage: ``"tuning"``, ``"tuning-2"`` and so on where the grid was widened, or ``"report"``.
        contender: The name of the optimizer that it trains with.
        relative_lr: The learning rate as a multiple of the contender's usual one.
        lr: The learning rate; where several optimizers are varied, the first one's.
        weight_decay: The weight decay as given in the plan, before it is converted for the contender.
        seed: Of initial weights, order of the data, augmentation and dropout.
    """

    name: str
    stage: str
    contender: str
    relative_lr: float
    lr: float
    weight_decay: float
    seed: int

    def to_json(self) -> str:
        """Return the trial as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trial:
        """Read a trial from :meth:`to_json`'s text."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        status: See :data:`Status`.
        metrics: Of the chosen checkpoint, by name: validation's, and in the stage ``"report"`` the test's.
        untrained: The metric that checkpoints are chosen by, before training; None if it could not be measured.
        history: A row a validation: ``epoch``, ``step``, ``seconds`` of training so far, the mean ``train/loss`` since
            the row before, or a GAN's ``train/critic_loss`` and so on, where ``training_step`` returns them, and the
            validation's metrics.
        seconds: Time of the training, validations included, without imports and without the test.
        steps: Optimizer steps, of the first optimizer where there are several.
        optimizer_share: Time in the optimizers' steps as a fraction of the time in training steps; NaN where they
            are taken within the backward pass (``release_gradients``).
        peak_memory: In MiB: on a GPU what torch allocated there, otherwise the process's.
        beliefs: Means over the run of ``step_gain_over_adam`` and ``eps_share`` of the whole model, where the
            optimizer has them; several optimizers' are averaged.
        fingerprints: Digests of the initial ``weights`` and of the first ``batch``, equal for equal seeds.
        machine: Of the run: processor, threads, and versions by package.
        error: The last lines that a crashed run printed.
    """

    status: Status
    metrics: dict[str, float] = field(default_factory=dict)
    untrained: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    optimizer_share: float = 0.0
    peak_memory: float = 0.0
    beliefs: dict[str, float] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def to_json(self) -> str:
        """Return the outcome as JSON; a figure that is not finite is written as ``NaN`` or ``Infinity``."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read an outcome from :meth:`to_json`'s text."""
        return cls(**json.loads(text))
