"""A callback that logs, layer by layer, what AdaBelief believes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.callbacks.watched import WatchedOptimizer, find_optimizers, parameter_names, unwrap
from lightning_adabelief.optim.belief import LAYER_STATISTICS, elementwise

OPTIMIZER_STATISTICS = ("rectification", "warmup", "skipped_steps", "nonfinite_steps")
DEFAULT = LAYER_STATISTICS + OPTIMIZER_STATISTICS
HISTOGRAMS = ("s_t", "effective_step_size", "step_gain_over_adam", "eps_share")


class BeliefMonitor(pl.Callback):
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
    ``skipped_steps``        steps that the gradient scaler left out, so far
    ``nonfinite_steps``      steps taken on a gradient with a NaN or an infinity, so far
    ======================== ==================================================================

    Definitions: :mod:`lightning_adabelief.optim.belief`. Nothing waits for the device except on the
    steps that log.

    Args:
        every_n_steps: Log every so many batches that step; ``None`` is the Trainer's
            ``log_every_n_steps``.
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
            optimizer is an AdaBelief, a glob matches no layer, or ``histograms`` finds no logger
            that takes them.

    Example::

        trainer = pl.Trainer(callbacks=[BeliefMonitor(include="encoder.*")])
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        statistics: Sequence[str] = DEFAULT,
        histograms: bool = False,
        top_k: int = 5,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"Invalid every_n_steps: {every_n_steps}. Give 1 or more, or None for the Trainer's")
        if top_k < 0:
            raise ValueError(f"Invalid top_k: {top_k}. Give 0 or more; include='*' logs every layer")
        for name in statistics:
            if name not in DEFAULT:
                near = difflib.get_close_matches(name, DEFAULT, n=1) or DEFAULT
                raise ValueError(f"Unknown statistic: {name!r}. Did you mean {' or '.join(near)}?")
        self.every_n_steps = every_n_steps
        self.include = _as_tuple(include)
        self.exclude = _as_tuple(exclude)
        self.statistics = tuple(statistics)
        self.histograms = histograms
        self.top_k = top_k
        self._watched: list[WatchedOptimizer] = []
        self._restored: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._logged: dict[str, int] = {}
        self._pending: dict[str, float] = {}
        self._pending_histograms: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the optimizers and their layers, and check that all that was asked for is there."""
        self._watched = find_optimizers(trainer.optimizers)
        self._check(trainer, pl_module)
        for watched in self._watched:
            if watched.name in self._restored:
                watched.load_state_dict(self._restored[watched.name])

            def after_step(*_: Any, watched: WatchedOptimizer = watched) -> None:
                watched.count_step()
                if self._due(trainer):
                    self._measure(watched, pl_module)

            self._handles.append(watched.optimizer.register_step_post_hook(after_step))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Count the attempt: a step that the gradient scaler skips never reaches the optimizer."""
        for watched in self._watched:
            if watched.optimizer is unwrap(optimizer):
                watched.attempted += 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was measured, if an optimizer stepped; of several steps in a batch, the last."""
        stepped = [watched for watched in self._watched if watched.attempted > self._logged.get(watched.name, 0)]
        if not stepped or not self._due(trainer):
            return
        for watched in stepped:
            self._logged[watched.name] = watched.attempted
            self._add("skipped_steps", watched.name, watched.skipped_steps)
            self._add("nonfinite_steps", watched.name, watched.nonfinite_steps)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        for logger in trainer.loggers:
            separator = logger.group_separator
            logger.log_metrics({tag.replace("/", separator): value for tag, value in self._pending.items()}, step=step)
            if isinstance(logger, TensorBoardLogger):
                for tag, values in self._pending_histograms.items():
                    logger.experiment.add_histogram(tag, values, step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in self._pending.items()})
        self._pending, self._pending_histograms = {}, {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the optimizers."""
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
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

    def _check(self, trainer: Any, pl_module: pl.LightningModule) -> None:
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
        kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers)
        if self.histograms and "TensorBoardLogger" not in kinds and not trainer.fast_dev_run:
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

    def _due(self, trainer: Any) -> bool:
        """Whether the batch under way is one to log, as the Trainer's own logging has it."""
        interval = trainer.log_every_n_steps if self.every_n_steps is None else self.every_n_steps
        # `+ 1`, for the Trainer counts the batch when it is over
        stepped = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        last = trainer.should_stop or trainer.fast_dev_run
        return interval > 0 and (stepped % interval == 0 or last)

    def _measure(self, watched: WatchedOptimizer, pl_module: pl.LightningModule) -> None:
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


def _finite_log10(values: Tensor) -> Tensor:
    """The decimal logarithms, flat, without those of 0 and of infinity."""
    logarithms = values.detach().float().log10().flatten()
    return logarithms[logarithms.isfinite()]
