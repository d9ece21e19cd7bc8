"""A callback that logs, layer by layer, what AdaBelief believes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.beliefs.elementwise import elementwise
from lightning_adabelief.beliefs.layers import LAYER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.alarms import Alarms
from lightning_adabelief.callbacks.belief_monitor.layer_choice import LayerChoice, as_tuple
from lightning_adabelief.callbacks.belief_monitor.outputs.closing_table import print_layers
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import log_histograms, takes_histograms
from lightning_adabelief.callbacks.belief_monitor.outputs.record import BeliefRecord
from lightning_adabelief.callbacks.belief_monitor.outputs.tensorboard_layout import write_layout
from lightning_adabelief.callbacks.belief_monitor.tracker import (
    UNCLIPPED,
    WatchedOptimizer,
    find_optimizers,
    parameter_names,
    unwrap,
)
from lightning_adabelief.lightning_tree import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    rank_zero_warn,
)
from lightning_adabelief.optim.names import plain_name

OPTIMIZER_STATISTICS = ("rectification", "warmup", "skipped_steps", "nonfinite_steps")
DEFAULT = (*LAYER_STATISTICS, UNCLIPPED, *OPTIMIZER_STATISTICS)
WHOLE = "model"
"""What the summary of all layers is called, unless a layer is."""

HISTOGRAMS = ("s_t", "effective_step_size", "step_gain_over_adam", "eps_share")


class BeliefMonitor(Callback):
    """Log per-layer statistics of AdaBelief's state to every logger of the Trainer.

    A layer here is one parameter tensor, by its name, unless ``depth`` puts several together. Tags
    are ``belief/<statistic>/<layer>`` with the logger's own separator: for the ``top_k`` most notable
    layers, those whose effective step size, over the run so far, was furthest from the median
    layer's; and for ``model``, the summary of all layers. With several optimizers each has its own
    ``top_k`` and its own summary, under its name instead of ``model`` (so it has where a layer is called
    that). Optimizers are named as LearningRateMonitor names them: ``AdaBelief``, ``AdaBelief-1``, and
    ``AdaBelief/pg2`` for the second of several param groups; one whose only group has a ``name`` goes by
    that. A layer that gets no gradient in the step that is measured is left out of it. Of several
    monitors in a Trainer, the first logs the summaries and warns.

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
    ``unclipped_grad_norm``  norm of the gradient before the Trainer clipped it, where it clips
    ======================== ==================================================================

    ======================== ==================================================================
    statistic                for an optimizer
    ======================== ==================================================================
    ``rectification``        r_t, 0 to 1; 1 without ``rectify``
    ``warmup``               share of the learning rate in force, 0 to 1
    ``skipped_steps``        steps set out for that the optimizer did not take, so far: those
                             that the gradient scaler left out
    ``nonfinite_steps``      steps taken on a gradient with a NaN or an infinity, so far; looked for
                             in the first rows of each (``callbacks/belief_monitor/nonfinite.py`` says why)
    ======================== ==================================================================

    Definitions: :mod:`lightning_adabelief.beliefs.elementwise`; medians of large layers are those of a
    sample, :mod:`lightning_adabelief.beliefs.layers`. Nothing waits for the device except on the
    steps that log. In distributed training rank 0 measures and logs; where parameters are sharded
    (DTensors), all ranks measure together.

    It also reads ``torch.optim.Adam`` and ``AdamW``, to tell before a switch what AdaBelief would do
    differently: their s_t is estimated as v_t - m_t^2, ``step_gain_over_adam`` is how much further
    AdaBelief would move a layer, and all else is Adam's own; ``eps_share``, ``rectification`` and
    ``warmup`` they do not have.

    It warns, once for each layer, of what is worth a look and says what to do: eps taking belief's
    place, steps that explode because gradients do not change, layers without gradient, spikes in
    ``update_to_weight``, gradients that are not finite.

    Args:
        every_n_steps: Log every so many batches that step; ``None`` is the Trainer's
            ``log_every_n_steps``. An optimizer that does not step in such a batch is logged at its
            next step.
        include: Glob, or globs, of layers to log, all of them, instead of the most notable:
            ``"*"`` is every layer.
        exclude: Glob, or globs, of layers or parameters to leave out; the summaries leave them out too.
        statistics: Which of the names above to log (default: all).
        histograms: Also write histograms over the weights, of the decimal logarithm of the first
            four statistics, for the layers logged, to each TensorBoardLogger and WandbLogger; their
            tags are ``belief_histograms/log10_<statistic>/<layer>``.
        top_k: How many notable layers to log when ``include`` is not given.
        depth: Put the parameters together whose names begin with the same so many parts: with 2,
            ``layer1.0`` is the layer of ``layer1.0.conv1.weight`` and all beside it. By default each
            parameter is a layer.
        heat_map: Draw all layers included, over the whole run: as the image ``belief/heat_map`` in
            TensorBoard, W&B and MLflow, and as ``belief.png`` and ``belief.csv`` in the folder of the
            first logger that has one. At the end of training, and at the ends of epochs as far as it
            takes at most 1/200 of the time; a long run's columns are means of several measurements.
        custom_scalars: Lay out TensorBoard's custom-scalars page: one chart a statistic, with its
            layers together. Write a layout of your own after the training has begun, and yours is shown.
        closing_table: Print a table of the layers logged when training has ended.
        prog_bar: Statistics whose summaries to put on the progress bar (default: none).

    Raises:
        ValueError: If an argument is not of this form; the message names the value.
        MisconfigurationException: At the start of training, if the Trainer has no logger, no
            optimizer is an AdaBelief, Adam or AdamW, a glob matches no layer, none is left,
            ``histograms`` finds no logger that takes them, or the strategy hides the parameters.

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
        depth: int | None = None,
        heat_map: bool = True,
        custom_scalars: bool = True,
        closing_table: bool = True,
        prog_bar: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"Invalid every_n_steps: {every_n_steps}. Give 1 or more, or None for the Trainer's")
        for name in as_tuple(statistics):
            if name not in DEFAULT:
                near = difflib.get_close_matches(name, DEFAULT, n=1) or DEFAULT
                raise ValueError(f"Unknown statistic: {name!r}. Did you mean {' or '.join(near)}?")
        for name in as_tuple(prog_bar):
            if name not in as_tuple(statistics):
                raise ValueError(f"prog_bar={name!r} is not among statistics={as_tuple(statistics)}. Add it there")
        self.every_n_steps = every_n_steps
        self._choice = LayerChoice(include, exclude, top_k, depth)
        self.statistics = as_tuple(statistics)
        self.histograms = histograms
        self.heat_map = heat_map
        self.custom_scalars = custom_scalars
        self.closing_table = closing_table
        self.prog_bar = as_tuple(prog_bar)
        self._watched: list[WatchedOptimizer] = []
        self._record = BeliefRecord(self.statistics)
        self._restored: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._pending: dict[str, float] = {}
        self._pending_histograms: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        """What tells the states of several monitors apart in a checkpoint."""
        return self._generate_state_key(
            **vars(self._choice), every_n_steps=self.every_n_steps, statistics=self.statistics
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizers and their layers, and check that all that was asked for is there."""
        if not self._restored and _batches(trainer) > 0:  # the same Trainer fits again
            self._restored = self.state_dict()
        self._watched = find_optimizers(trainer.optimizers)
        self._check(trainer, pl_module)
        clips_by_value = bool(trainer.gradient_clip_val) and trainer.gradient_clip_algorithm == "value"
        self._alarms = [Alarms(watched, clips_by_value) for watched in self._watched]
        restored, self._restored = self._restored, {}
        self._begin_record(trainer, restored.get("record", {}))
        self._pending, self._pending_histograms = {}, {}  # what a fit that failed may have left
        for watched in self._watched:
            if watched.name in restored:
                watched.load_state_dict(restored[watched.name])
            if not (trainer.is_global_zero or watched.is_sharded):
                continue  # rank 0 knows it all

            def after_step(*_: Any, watched: WatchedOptimizer = watched) -> None:
                watched.count_step()
                if self._due(watched, trainer) and not watched.stands_still and self._measure(watched, pl_module):
                    watched.measured_at = _batches(trainer) + 1

            self._handles.append(watched.optimizer.register_step_post_hook(after_step))
        self._has_begun = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take the first interval to begin here: only now does a resumed Trainer know its batches."""
        if not self._has_begun:
            for watched in self._watched:
                watched.measured_at = _batches(trainer)
            self._has_begun = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Count the attempt: a step that the gradient scaler skips never reaches the optimizer."""
        for watched in self._watched:
            if watched.optimizer is unwrap(optimizer):
                watched.attempted += 1
                measures = trainer.is_global_zero or watched.is_sharded
                if (
                    measures
                    and trainer.gradient_clip_val
                    and UNCLIPPED in self.statistics
                    and self._due(watched, trainer)
                ):
                    watched.measure_unclipped()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was measured in this batch, and warn of it; of several steps, the last."""
        if not self._handles:
            return
        step = _batches(trainer)
        for watched, alarms in zip(self._watched, self._alarms, strict=True):
            measured = watched.measured_at == step + 1
            if measured and self.heat_map and trainer.is_global_zero:
                self._record.add(watched.name, step, self._recorded(watched, pl_module))
            if not self._is_first:
                continue
            if measured:
                self._add("nonfinite_steps", watched.name, watched.nonfinite_steps)
                first = watched.first_nonfinite(parameter_names(self._watched, pl_module))
                for warning in [*alarms.check(step), *alarms.nonfinite(first)]:
                    rank_zero_warn(warning)
            if measured or watched.noticed_skips > watched.logged_skips:
                self._add("skipped_steps", watched.name, watched.skipped_steps)
                watched.logged_skips = watched.noticed_skips
        if not self._pending:
            return
        for logger in trainer.loggers:
            separator = logger.group_separator
            logger.log_metrics({tag.replace("/", separator): value for tag, value in self._pending.items()}, step=step)
            log_histograms(logger, self._pending_histograms, step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in self._pending.items()})
        self._show_progress(pl_module)
        self._pending, self._pending_histograms = {}, {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the heat map, unless it was written a short while ago."""
        self._write(self._record.write_if_cheap, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers; write the heat map."""
        self._leave()
        self._write(self._record.write, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers; write what there is, and close a run that was interrupted as one that ended."""
        self._leave()
        with suppress(Exception):  # it must not hide the one that ended the training
            self._record.write(trainer.loggers)
        if isinstance(exception, KeyboardInterrupt):
            self._print_table(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the closing table."""
        self._print_table(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The counts, what made layers notable and the heat map, so that a resumed run goes on with them."""
        if not self._watched:
            return self._restored
        return {item.name: item.state_dict() for item in self._watched} | {"record": self._record.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the counts of the run that is resumed."""
        self._restored = state_dict

    def notable_layers(self) -> dict[str, dict[str, float]]:
        """What the closing table of a run shows.

        Returns:
            From a layer's name to its statistics when last measured: the layers included, or the
            most notable, these first. Empty before anything was logged.
        """
        return {name: watched.layers[name] for watched in self._watched for name in self._choice.select(watched)}

    def _check(self, trainer: Any, pl_module: LightningModule) -> None:
        strategy = type(trainer.strategy).__name__
        if strategy == "FSDPStrategy":
            raise MisconfigurationException(
                f"BeliefMonitor cannot read parameters that {strategy} has flattened. Shard the module with "
                "ModelParallelStrategy (FSDP2), or remove the callback"
            )
        if not trainer.loggers and trainer.is_global_zero:
            raise MisconfigurationException(
                "BeliefMonitor has nowhere to log to: the Trainer has no logger. Give it one, for example "
                "Trainer(logger=True), or remove the callback"
            )
        if not self._watched:
            kinds = ", ".join(type(unwrap(optimizer)).__name__ for optimizer in trainer.optimizers) or "none"
            raise MisconfigurationException(
                f"BeliefMonitor found no optimizer with a belief, only: {kinds}. Return lightning_adabelief.AdaBelief "
                "(or torch's Adam or AdamW) from configure_optimizers, or remove the callback"
            )
        taken = any(map(takes_histograms, trainer.loggers)) or not trainer.is_global_zero
        if self.histograms and not taken and not trainer.fast_dev_run:
            kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            raise MisconfigurationException(
                "BeliefMonitor(histograms=True) needs a TensorBoardLogger or WandbLogger, "
                f"the Trainer has only: {kinds}. Add one, or leave histograms out"
            )
        names = parameter_names(self._watched, pl_module)
        optimized = {param for item in trainer.optimizers for group in item.param_groups for param in group["params"]}
        frozen = [plain_name(name) for name, param in pl_module.named_parameters() if param not in optimized]
        self._choice.check([[names[param] for param in watched.parameters()] for watched in self._watched], frozen)

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

    def _measure(self, watched: WatchedOptimizer, pl_module: LightningModule) -> bool:
        """Take the statistics of the step just taken; tell whether it moved a layer that is measured."""
        names = parameter_names(self._watched, pl_module)
        layers = watched.measure(names, self._choice.measures, self._choice.layer_of)
        if not layers:
            return False
        alone = len(self._watched) == 1 and WHOLE not in layers
        summary, whole = watched.summary(), WHOLE if alone else watched.name
        for statistic in (*watched.statistics, UNCLIPPED):
            if statistic in summary:
                if self._is_first:
                    self._add(statistic, whole, summary[statistic])
                for layer in self._choice.select(watched):
                    self._add(statistic, layer, watched.layers[layer][statistic])
        for name, values in watched.group_statistics().items() if self._is_first else ():
            for statistic, value in values.items():
                self._add(statistic, name, value)
        if self.histograms:
            for layer in self._choice.select(watched):
                weights = [elementwise(*member) for member in layers[layer]]
                for statistic in set(HISTOGRAMS).intersection(self.statistics, watched.statistics):
                    logarithms = torch.cat([_finite_log10(values[statistic]) for values in weights])
                    if len(logarithms) > 0:
                        self._pending_histograms[f"belief_histograms/log10_{statistic}/{layer}"] = logarithms
        return True

    def _add(self, statistic: str, name: str, value: float) -> None:
        if statistic in self.statistics:
            self._pending[f"belief/{statistic}/{name}"] = float(value)

    def _begin_record(self, trainer: Any, restored: dict[str, Any]) -> None:
        """Begin the heat map or go on with it, and lay out TensorBoard."""
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, BeliefMonitor)]
        place = monitors.index(self)
        self._is_first = place == 0
        self._record = BeliefRecord(self.statistics, suffix=f"-{place}" if place else "")
        self._record.load_state_dict(restored)
        if self.custom_scalars and trainer.is_global_zero:
            write_layout(trainer.loggers, {name for monitor in monitors for name in monitor.statistics})

    def _recorded(self, watched: WatchedOptimizer, pl_module: LightningModule) -> dict[str, dict[str, float]]:
        """What the heat map shows: the layers measured and included, in the network's order."""
        names = parameter_names(self._watched, pl_module)
        in_order = [self._choice.layer_of(names[param]) for param in pl_module.parameters() if param in names]
        return {
            layer: {statistic: watched.layers[layer][statistic] for statistic in watched.statistics}
            for layer in dict.fromkeys([*in_order, *watched.layers])
            if layer in watched.layers and self._choice.includes(layer)
        }

    def _show_progress(self, pl_module: LightningModule) -> None:
        """Put the summaries that were asked for on the progress bar."""
        wholes = (WHOLE, *(watched.name for watched in self._watched))
        for tag, value in self._pending.items():
            _, statistic, name = tag.split("/", 2)
            if statistic in self.prog_bar and name.split("/")[0] in wholes:
                label = statistic if name in (WHOLE, self._watched[0].name) else f"{statistic}/{name}"
                pl_module.log(label, value, prog_bar=True, logger=False)

    def _print_table(self, trainer: Any) -> None:
        if self.closing_table and trainer.is_global_zero:
            print_layers(self.notable_layers())

    def _write(self, write: Callable[[Any], None], trainer: Trainer) -> None:
        """Write the heat map; what is in its way, such as a full disk, is no reason to end a training."""
        try:
            write(trainer.loggers)
        except Exception as error:
            rank_zero_warn(f"BeliefMonitor could not write its heat map: {error}")

    def _leave(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _batches(trainer: Any) -> int:
    """The batches that stepped and are over: the step that loggers are given."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def _finite_log10(values: Tensor) -> Tensor:
    """The decimal logarithms, flat, without those of 0 and of infinity."""
    logarithms = values.detach().float().log10().flatten()
    return logarithms[logarithms.isfinite()]
