"""The callback that watches a trial, and writes what came of it."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, Literal

from torch.optim import Optimizer

from lightning_adabelief.beliefs.measure import measure
from lightning_adabelief.beliefs.reading import Readable, find_optimizers, find_readable
from lightning_adabelief.comparison.fingerprints import digest_tensors
from lightning_adabelief.comparison.machine import describe_machine, measure_peak_memory
from lightning_adabelief.comparison.optimizer_check import check_optimizers
from lightning_adabelief.comparison.step_timer import StepTimer
from lightning_adabelief.comparison.training_losses import TrainingLosses
from lightning_adabelief.comparison.trial import Outcome, Status
from lightning_adabelief.files import replace_file
from lightning_adabelief.lightning_tree import Callback, LightningModule, MisconfigurationException, Trainer
from lightning_adabelief.optim.gradient_release import find_release
from lightning_adabelief.suggest import suggest

CHECK_INTERVAL = 20
"""Batches from one look at the losses to the next: each waits for the device."""

BELIEFS = ("step_gain_over_adam", "eps_share")
"""The statistics of the whole model that are recorded."""

MAX_BELIEFS = 30
"""The number of moments of a run at which the optimizers' beliefs are measured."""

INTERVAL_OF_ENDLESS_RUN = 1000
"""Batches from one such moment to the next where the length of the run is not known."""


class TrialRecord(Callback):
    """Write what came of a training as an :class:`~lightning_adabelief.comparison.trial.Outcome`.

    The file is written when training has ended, and again with the test's metrics when a test by the same Trainer has;
    where both log a metric under one name, the test's is kept. Of a training that raised an error, the file has what
    was measured before.

    A training whose loss or metric is not finite is stopped: its outcome is ``"diverged"``.

    Args:
        path: The file to write.
        metric: The validation's metric that checkpoints are chosen by.
        mode: ``"min"`` or ``"max"``: which is better.
        optimizers: Class paths of the optimizers that the module must make; it may make others beside them.

    Raises:
        MisconfigurationException: At the start of training, if the module does not make the optimizers; at a validation
            that does not log ``metric``; and at the end of a training without a validation.
    """

    def __init__(self, path: str, metric: str, mode: Literal["min", "max"], optimizers: list[str]) -> None:
        self.path = Path(path)
        self.metric = metric
        self.mode = mode
        self.optimizers = optimizers
        self._outcome: Outcome | None = None
        self._fingerprints: dict[str, str] = {}
        self._untrained: float | None = None
        self._best: dict[str, float] = {}
        self._history: list[dict[str, float]] = []
        self._metrics_before: dict[str, Any] = {}
        self._losses = TrainingLosses()
        self._is_diverged = False
        self._began: float | None = None
        self._steps = 0
        self._batches = 0
        self._beliefs: defaultdict[str, list[float]] = defaultdict(list)
        self._due: set[Optimizer] = set()
        self._handles: list[Any] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the optimizers, and take the fingerprint of the initial weights."""
        check_optimizers(trainer.optimizers, self.optimizers, pl_module)
        self._fingerprints["weights"] = digest_tensors(pl_module.state_dict())

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Begin to watch the optimizers' steps."""
        self._timer = StepTimer(trainer.strategy.root_device)
        self._watched = [inner for optimizer in trainer.optimizers for inner in find_optimizers(optimizer)]
        self._belief_interval = _choose_belief_interval(trainer)
        for optimizer in self._watched:
            # on_before_optimizer_step, if the step has a closure, comes after it and begins the step anew.
            self._handles.append(optimizer.register_step_pre_hook(lambda *_: self._timer.begin_step()))
            self._handles.append(optimizer.register_step_post_hook(partial(self._end_step, pl_module)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the seconds: the module may have prepared itself in ``on_train_start``."""
        self._began = self._began or perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin a batch, and take the fingerprint of the first."""
        if self._batches == 0:
            self._fingerprints["batch"] = digest_tensors(batch)
        if (self._batches + 1) % self._belief_interval == 0:
            self._due = set(self._watched)
        self._batches += 1
        self._timer.begin_batch()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Begin a step again, as the forward and the backward pass, which Lightning runs within it, have ended."""
        self._timer.begin_step()

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's losses, and stop a training whose losses are not finite."""
        self._timer.end_batch()
        self._losses.add(outputs, trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1)
        if self._batches % CHECK_INTERVAL == 0:
            self._stop_unless(self._losses.are_finite(), trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics, to tell those of the validation."""
        self._metrics_before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Add a row to the history, and stop a training whose metric is not finite."""
        if trainer.state.fn != "fit":
            return
        metrics = _read_metrics(trainer, self._metrics_before)
        if trainer.sanity_checking:
            self._untrained = metrics.get(self.metric)
            return
        if self.metric not in metrics:
            raise MisconfigurationException(
                f"The validation logs no {self.metric!r} to choose a checkpoint by. {suggest(self.metric, metrics)}"
            )
        losses = self._losses.take_means()
        moment = {"epoch": trainer.current_epoch, "step": self._steps, "seconds": self._count_seconds()}
        self._history.append({**moment, **losses, **metrics})
        self._stop_unless(all(map(math.isfinite, [metrics[self.metric], *losses.values()])), trainer)
        if self._is_better(metrics[self.metric], self._best.get(self.metric)):
            self._best = metrics

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Write the outcome."""
        self._is_diverged |= not self._losses.are_finite()
        if not self._history and not self._is_diverged:
            raise MisconfigurationException(
                f"The training has ended without a validation, so there is no {self.metric!r}. Give validation data, "
                "and validate at least once a training"
            )
        best = self._best.get(self.metric, math.nan)
        is_collapsed = self._untrained is not None and not self._is_better(best, self._untrained)
        self._end(trainer, "diverged" if self._is_diverged else "collapsed" if is_collapsed else "finished")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the outcome of this Trainer's training again, with the test's metrics."""
        if self._outcome is not None:
            self._outcome.metrics.update(_read_metrics(trainer, {}))
            self._write(trainer)

    def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what was measured before an error; where weights or losses are not finite, that is its cause."""
        if not isinstance(exception, Exception) or self._outcome is not None or self._began is None:
            return
        with suppress(Exception):  # it must not hide the exception that ended the training
            is_finite = self._losses.are_finite() and all(bool(w.isfinite().all()) for w in pl_module.parameters())
            self._end(trainer, "crashed" if is_finite and not self._is_diverged else "diverged")

    def _end_step(self, module: LightningModule, optimizer: Optimizer, *_: Any) -> None:
        self._timer.end_step()
        self._steps += optimizer is self._watched[0]
        if optimizer in self._due:
            self._due.remove(optimizer)
            self._measure_beliefs(optimizer, module)

    def _measure_beliefs(self, optimizer: Optimizer, module: LightningModule) -> None:
        """Measure an optimizer's beliefs, if it has any, off every clock: others have none to measure."""
        if find_readable(optimizer) is Readable.GRADIENT:
            return
        before = perf_counter()
        of_model = measure(optimizer, module).model
        for name in BELIEFS:
            if math.isfinite(of_model.get(name, math.nan)):
                self._beliefs[name].append(of_model[name])
        assert self._began is not None
        passed = perf_counter() - before
        self._began += passed
        self._timer.leave_out(passed)

    def _is_better(self, metric: float, other: float | None) -> bool:
        if not math.isfinite(metric) or other is None or not math.isfinite(other):
            return math.isfinite(metric)
        return metric < other if self.mode == "min" else metric > other

    def _count_seconds(self) -> float:
        return perf_counter() - self._began if self._began is not None else 0.0

    def _stop_unless(self, is_finite: bool, trainer: Any) -> None:
        """Stop the training, on all ranks alike, unless what was looked at is finite on each."""
        if not trainer.strategy.reduce_boolean_decision(is_finite):
            self._is_diverged = True
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = 0  # either would let it go on
            trainer.should_stop = True

    def _end(self, trainer: Any, status: Status) -> None:
        for handle in self._handles:
            handle.remove()
        device = trainer.strategy.root_device
        self._outcome = Outcome(
            status,
            metrics=self._best,
            untrained=self._untrained,
            history=self._history,
            seconds=self._count_seconds(),
            steps=self._steps,
            optimizer_share=math.nan if any(map(find_release, self._watched)) else self._timer.share,
            peak_memory=measure_peak_memory(device),
            beliefs={name: fmean(values) for name, values in self._beliefs.items()},
            fingerprints=self._fingerprints,
            machine=describe_machine(device, self.optimizers),
        )
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        assert self._outcome is not None
        if trainer.is_global_zero:
            with replace_file(self.path) as part:
                part.write_text(self._outcome.to_json(), encoding="utf-8")


def _read_metrics(trainer: Trainer, before: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that were logged since ``before`` was read: a metric that is logged is a new tensor."""
    metrics = trainer.callback_metrics
    return {name: float(value) for name, value in metrics.items() if before.get(name) is not value}


def _choose_belief_interval(trainer: Any) -> int:
    """Return the number of batches from one measurement of beliefs to the next."""
    batches = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs * trainer.num_training_batches
    if trainer.max_steps != -1:
        batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
    return math.ceil(batches / MAX_BELIEFS) if math.isfinite(batches) else INTERVAL_OF_ENDLESS_RUN
