"""A callback that logs, layer by layer, what AdaBelief believes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.callbacks.watched import WatchedOptimizer, find_optimizers, parameter_names, unwrap
from lightning_adabelief.lightning_tree import (
    Callback,
    LightningModule,
    MisconfigurationException,
    TensorBoardLogger,
    Trainer,
)
from lightning_adabelief.optim.belief import LAYER_STATISTICS, elementwise

OPTIMIZER_STATISTICS = ("rectification", "warmup", "skipped_steps", "nonfinite_steps")
DEFAULT = LAYER_STATISTICS + OPTIMIZER_STATISTICS
HISTOGRAMS = ("s_t", "effective_step_size", "step_gain_over_adam", "eps_share")


class BeliefMonitor(Callback):
    """Log per-layer statistics of AdaBelief's state to every logger of the Trainer.

    A layer here is one parameter tensor, by its name. Tags are ``belief/<statistic>/<layer>`` with
    the logger's own separator: for the ``top_k`` most notable layers, those whose effective step
    size, over the run so far, was furthest from the median layer's; and for ``model``, the summary
    of all layers. With several optimizers each has its own ``top_k`` and its own summary, under its
    name instead of ``model``. Optimizers are named as LearningRateMonitor names them: ``AdaBelief``,
    ``AdaBelief-1``, and ``AdaBelief/pg2`` for the second of several param groups.

    ======================== ==================================================================
    statistic                for a layer
    ======================== ==================================================================
    ``s_t``                  mean of the bias-corrected s_t: how much gradients disagree with
                             their own trend (unit of the gradient, squared)
    ``effective_step_size``  median of lr_t / (sqrt(s_t) + eps), warmup and rectification
                             included: how far a weight moves for a unit of momentum
    ``step_gain_over_adam``  median of sqrt(s_t + m_t^2) / sqrt(s_t): how much further than Adam
    ``eps_share``            mean share of s_t that is accumulated eps; near 1 it runs as SGD
    ``update_to_weight``     norm of the update over norm of the weight
    ``grad_norm``            norm of the gradient that the step used, clipped and unscaled
    ``update_norm``          norm of the update, without weight decay
    ======================== ==================================================================

    ======================== ==================================================================
    statistic                for an optimizer
    ======================== ==================================================================
    ``rectification``        r_t, 0 to 1; 1 without ``rectify``
    ``warmup``               share of the learning rate in force, 0 to 1
    ``skipped_steps``        steps set out for that the optimizer did not take, so far: those
                             that the gradient scaler left out
    ``nonfinite_steps``      steps taken on a gradient with a NaN or an infinity, so far
    ======================== ==================================================================

    Definitions: :mod:`lightning_adabelief.optim.belief`. Nothing waits for the device except on the
    steps that log.

    Args:
        every_n_steps: Log every so many batches that step; ``None`` is the Trainer's
            ``log_every_n_steps``. An optimizer that does not step in such a batch is logged at its
            next step.
        include: Glob, or globs, of layers to log, all of them, instead of the most notable:
            ``"*"`` is every layer.
        exclude: Glob, or globs, of layers to leave out; the summaries leave them out too.
        statistics: Which of the names above to log (default: all).
        histograms: Also write histograms over the weights, of the decimal logarithm of the first
            four statistics, for the layers logged, to each TensorBoardLogger; their tags are
            ``belief_histograms/log10_<statistic>/<layer>``.
        top_k: How many notable layers to log when ``include`` is not given.

    Raises:
        ValueError: If an argument is not of this form; the message names the value.
        MisconfigurationException: At the start of training, if the Trainer has no logger, no
            optimizer is an AdaBelief, a glob matches no layer, none is left, or ``histograms`` finds
            no logger that takes them.

    Example::

        trainer = Trainer(callbacks=[BeliefMonitor(include="encoder.*")])
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        statistics: str | Sequence[str] = DEFAULT,
        histograms: bool = False,
        top_k: int = 5,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"Invalid every_n_steps: {every_n_steps}. Give 1 or more, or None for the Trainer's")
        if top_k < 0:
            raise ValueError(f"Invalid top_k: {top_k}. Give 0 or more; include='*' logs every layer")
        for name in _as_tuple(statistics):
            if name not in DEFAULT:
                near = difflib.get_close_matches(name, DEFAULT, n=1) or DEFAULT
                raise ValueError(f"Unknown statistic: {name!r}. Did you mean {' or '.join(near)}?")
        self.every_n_steps = every_n_steps
        self.include = _as_tuple(include)
        self.exclude = _as_tuple(exclude)
        self.statistics = _as_tuple(statistics)
        self.histograms = histograms
        self.top_k = top_k
        self._watched: list[WatchedOptimizer] = []
        self._restored: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._pending: dict[str, float] = {}
        self._pending_histograms: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        """What tells the states of several monitors apart in a checkpoint."""
        return self._generate_state_key(include=self.include, exclude=self.exclude, every_n_steps=self.every_n_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizers and their layers, and check that all that was asked for is there."""
        self._watched = find_optimizers(trainer.optimizers)
        self._check(trainer, pl_module)
        restored, self._restored = self._restored, {}
        self._pending, self._pending_histograms = {}, {}  # what a fit that failed may have left
        for watched in self._watched:
            watched.measured_at = _batches(trainer)
            if watched.name in restored:
                watched.load_state_dict(restored[watched.name])

            def after_step(*_: Any, watched: WatchedOptimizer = watched) -> None:
                watched.count_step(check_finite="nonfinite_steps" in self.statistics)
                if self._due(watched, trainer):
                    self._measure(watched, pl_module)
                    watched.measured_at = _batches(trainer) + 1

            self._handles.append(watched.optimizer.register_step_post_hook(after_step))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Count the attempt: a step that the gradient scaler skips never reaches the optimizer."""
        for watched in self._watched:
            if watched.optimizer is unwrap(optimizer):
                watched.attempted += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was measured in this batch; of several steps, the last."""
        for watched in self._watched:
            measured = watched.measured_at == _batches(trainer) + 1
            if measured:
                self._add("nonfinite_steps", watched.name, watched.nonfinite_steps)
            if measured or watched.skipped_steps > watched.logged_skips:
                self._add("skipped_steps", watched.name, watched.skipped_steps)
                watched.logged_skips = watched.skipped_steps
        if not self._pending:
            return
        step = _batches(trainer)
        for logger in trainer.loggers:
            separator = logger.group_separator
            logger.log_metrics({tag.replace("/", separator): value for tag, value in self._pending.items()}, step=step)
            if isinstance(logger, TensorBoardLogger):
                for tag, values in self._pending_histograms.items():
                    logger.experiment.add_histogram(tag, values, step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in self._pending.items()})
        self._pending, self._pending_histograms = {}, {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers."""
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """The counts and what made layers notable, so that a resumed run goes on with them."""
        return {watched.name: watched.state_dict() for watched in self._watched} or self._restored

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the counts of the run that is resumed."""
        self._restored = state_dict

    def notable_layers(self) -> dict[str, dict[str, float]]:
        """What the closing table of a run shows.

        Returns:
            From a layer's name to its statistics when last measured: the layers included, or the
            most notable, these first. Empty before anything was logged.
        """
        return {name: watched.layers[name] for watched in self._watched for name in self._select(watched)}

    def _check(self, trainer: Any, pl_module: LightningModule) -> None:
        if not trainer.loggers:
            raise MisconfigurationException(
                "BeliefMonitor has nowhere to log to: the Trainer has no logger. Give it one, for example "
                "Trainer(logger=True), or remove the callback"
            )
        if not self._watched:
            kinds = ", ".join(type(unwrap(optimizer)).__name__ for optimizer in trainer.optimizers) or "none"
            raise MisconfigurationException(
                f"BeliefMonitor found no optimizer with a belief, only: {kinds}. Return "
                "lightning_adabelief.AdaBelief from configure_optimizers, or remove the callback"
            )
        tensorboard = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if self.histograms and not tensorboard and not trainer.fast_dev_run:
            kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            raise MisconfigurationException(
                f"BeliefMonitor(histograms=True) needs a TensorBoardLogger, the Trainer has only: {kinds}. "
                "Add one, or leave histograms out"
            )
        names = parameter_names(self._watched, pl_module).values()
        for option, globs in (("include", self.include), ("exclude", self.exclude)):
            for glob in globs:
                if not any(fnmatchcase(name, glob) for name in names):
                    near = difflib.get_close_matches(glob, names, n=3, cutoff=0)
                    raise MisconfigurationException(
                        f"BeliefMonitor({option}={glob!r}) matches no layer. Layers have names like {', '.join(near)}"
                    )
        if not any(_matches(name, self.include or ("*",)) and not _matches(name, self.exclude) for name in names):
            raise MisconfigurationException(
                f"BeliefMonitor(include={self.include}, exclude={self.exclude}) leaves no layer to log. Exclude less"
            )

    def _due(self, watched: WatchedOptimizer, trainer: Any) -> bool:
        """Whether to measure the step just taken: an interval has ended since the last measurement.

        In the plain case these are the batches in which the Trainer logs; an optimizer that did not
        step in such a batch is measured at its next step.
        """
        interval = trainer.log_every_n_steps if self.every_n_steps is None else self.every_n_steps
        batch = _batches(trainer) + 1  # counted when it is over
        if interval == 0:
            return False
        ended = batch // interval > watched.measured_at // interval
        return ended or batch == watched.measured_at or trainer.should_stop or trainer.fast_dev_run

    def _measure(self, watched: WatchedOptimizer, pl_module: LightningModule) -> None:
        """Take the statistics of the step just taken."""
        names = parameter_names(self._watched, pl_module)
        layers = watched.measure(names, keep=lambda name: not _matches(name, self.exclude))
        if not layers:
            return
        summary, whole = watched.summary(), "model" if len(self._watched) == 1 else watched.name
        for statistic in LAYER_STATISTICS:
            self._add(statistic, whole, summary[statistic])
            for layer in self._select(watched):
                self._add(statistic, layer, watched.layers[layer][statistic])
        for name, values in watched.group_statistics().items():
            for statistic, value in values.items():
                self._add(statistic, name, value)
        if self.histograms:
            for layer in self._select(watched):
                weights = elementwise(*layers[layer])
                for statistic in HISTOGRAMS:
                    logarithms = _finite_log10(weights[statistic])
                    if statistic in self.statistics and len(logarithms) > 0:
                        self._pending_histograms[f"belief_histograms/log10_{statistic}/{layer}"] = logarithms

    def _add(self, statistic: str, name: str, value: float) -> None:
        if statistic in self.statistics:
            self._pending[f"belief/{statistic}/{name}"] = float(value)

    def _select(self, watched: WatchedOptimizer) -> list[str]:
        """The layers to log: all those included, or the most notable."""
        if self.include:
            return [name for name in watched.layers if _matches(name, self.include)]
        return sorted(watched.layers, key=lambda name: -watched.notability[name])[: self.top_k]

    def _leave(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _as_tuple(globs: str | Sequence[str] | None) -> tuple[str, ...]:
    if globs is None:
        return ()
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _batches(trainer: Any) -> int:
    """The batches that stepped and are over: the step that loggers are given."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def _finite_log10(values: Tensor) -> Tensor:
    """The decimal logarithms, flat, without those of 0 and of infinity."""
    logarithms = values.detach().float().log10().flatten()
    return logarithms[logarithms.isfinite()]
