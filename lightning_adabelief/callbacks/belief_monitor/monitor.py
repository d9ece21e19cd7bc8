"""A callback that logs, layer by layer, what AdaBelief believes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from torch.optim import Optimizer

from lightning_adabelief.beliefs.reading import find_optimizers
from lightning_adabelief.beliefs.statistic import STATISTICS, text_table
from lightning_adabelief.callbacks.belief_monitor.alarms import Alarms
from lightning_adabelief.callbacks.belief_monitor.clipping import find_clipping
from lightning_adabelief.callbacks.belief_monitor.layer_choice import LayerChoice, as_names, is_whole_number
from lightning_adabelief.callbacks.belief_monitor.measurement import Measurement, Values
from lightning_adabelief.callbacks.belief_monitor.outputs.closing_table import ClosingTable
from lightning_adabelief.callbacks.belief_monitor.outputs.histograms import Histograms, take_logarithms
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import takes_histograms
from lightning_adabelief.callbacks.belief_monitor.outputs.record import BeliefRecord
from lightning_adabelief.callbacks.belief_monitor.outputs.scalars import Scalars
from lightning_adabelief.callbacks.belief_monitor.outputs.tensorboard_layout import write_layout
from lightning_adabelief.callbacks.belief_monitor.parameter_names import ParameterNames
from lightning_adabelief.callbacks.belief_monitor.progress import is_due, logged_step
from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker, track_optimizers
from lightning_adabelief.lightning_tree import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    rank_zero_warn,
)
from lightning_adabelief.optim.names import parameter_names as names_in_module
from lightning_adabelief.suggest import suggest

DEFAULT = tuple(row.name for row in STATISTICS)
"""The statistics that are logged unless others are chosen: all."""

SUMMARY_NAME = "model"
"""The name of the summary of all layers, unless a layer has it."""


class BeliefMonitor(Callback):
    """Log per-layer statistics of AdaBelief's state to every logger of the Trainer.

    A layer here is one parameter tensor, by its name, unless ``depth`` puts several together. Tags
    are ``belief/<statistic>/<layer>`` with the logger's own separator: for the ``top_k`` most notable
    layers, those whose effective step size, over the run so far, was furthest from the median
    layer's; and for ``model``, the summary of all layers. With several optimizers each has its own
    ``top_k`` and its own summary, which is called by the optimizer's name instead of ``model``; so is the
    summary of a single optimizer where a layer is itself called ``model``. Optimizers are named as
    LearningRateMonitor names them: ``AdaBelief``, ``AdaBelief-1``, and ``AdaBelief/pg2`` for the second of
    several param groups; one whose only group has a ``name`` is called by that. A layer without a gradient
    in the step that is measured is left out of it. Of several monitors in a Trainer, the first logs the
    summaries and warns.

    {statistics}

    Their table is :mod:`lightning_adabelief.beliefs.statistic`. Medians of large layers are those of a sample
    (:mod:`lightning_adabelief.beliefs.sample`). What is not finite is looked for in the first rows of each gradient,
    or in all of it where a fused step is measured. Weights that have had no gradient yet, as those of words not met,
    don't count in the effective step size, the gain and eps_share, unless a layer has no others. Nothing waits for
    the device except on the steps that log. In distributed training every rank measures, and rank 0 logs.

    Any other optimizer is shown as far as it can be read. Of Adam, AdamW, RAdam, NAdam and all others that keep
    Adam's two averages, s_t is estimated from v_t - m_t^2, and ``step_gain_over_adam`` tells before a switch how
    much further AdaBelief would move a layer. Those that keep no second moment, such as SGD, Lion and Muon, have
    ``grad_norm``, ``update_norm``, ``update_to_weight`` and, with a momentum, ``grad_momentum_cosine``. But for
    AdaBelief, Adam and AdamW the update is measured: on the steps that log, weights and momenta are copied. An
    optimizer in a wrapper, such as a Lookahead, is found where the wrapper holds it.

    It warns once for each layer, and says what to do, where eps takes belief's place, where steps explode
    because gradients do not change, where a layer has no gradient, where ``update_to_weight`` spikes, and
    where gradients are not finite.

    Args:
        every_n_steps: Log every so many batches that step; ``None`` is the Trainer's
            ``log_every_n_steps``. An optimizer that does not step in such a batch is logged at its
            next step.
        include: Glob, or globs, of layers to log, all of them, instead of the most notable:
            ``"*"`` is every layer.
        exclude: Glob, or globs, of layers or parameters to leave out; the summaries leave them out too.
        statistics: Which of the names above to log (default: all).
        histograms: Also write histograms over the weights, of the decimal logarithms of the statistics that
            each weight has, for the layers logged, to each TensorBoardLogger and WandbLogger; their
            tags are ``belief_histograms/log10_<statistic>/<layer>``.
        top_k: How many notable layers to log when ``include`` is not given.
        depth: Take parameters for one layer if their names agree in this many leading parts: with 2,
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
        MisconfigurationException: At the start of training, if the Trainer has no logger, a glob matches
            no layer, none is left, ``histograms`` finds no logger that takes them, or the strategy hides
            the parameters. Where there is no optimizer, or one has none of ``statistics``, it warns.

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
        if every_n_steps is not None and (not is_whole_number(every_n_steps) or every_n_steps < 1):
            raise ValueError(
                f"Invalid every_n_steps: {every_n_steps}. Give a whole number, 1 or more, or None for the Trainer's"
            )
        statistics, prog_bar = as_names("statistics", statistics), as_names("prog_bar", prog_bar)
        for name in statistics:
            if name not in DEFAULT:
                raise ValueError(f"Unknown statistic: {name!r}. {suggest(name, DEFAULT)}")
        for name in prog_bar:
            if name not in statistics:
                raise ValueError(f"prog_bar={name!r} is not among statistics={statistics}. Add it there")
        self.every_n_steps = every_n_steps
        self._choice = LayerChoice(include, exclude, top_k, depth)
        self.statistics = statistics
        self.histograms = histograms
        self.heat_map = heat_map
        self.custom_scalars = custom_scalars
        self.closing_table = closing_table
        self.prog_bar = prog_bar
        self._trackers: list[OptimizerTracker] = []
        self._table = ClosingTable()
        self._record = BeliefRecord(self.statistics)
        self._restored: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._pending: dict[str, Measurement] = {}
        self._alarms: list[Alarms] = []
        self._outputs: list[Any] = []
        self._module_id: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or another process goes on from: the options and the state, not the Trainer's objects."""
        of_a_fit: dict[str, Any] = {name: [] for name in ("_trackers", "_alarms", "_outputs", "_handles")}
        of_a_fit |= {"_pending": {}, "_names": None, "_module_id": None}
        return {**self.__dict__, **of_a_fit, "_restored": self.state_dict()}

    @property
    def state_key(self) -> str:
        """The key of this monitor's state in a checkpoint, which tells several monitors apart."""
        options = {name: getattr(self, name) for name in ("every_n_steps", "histograms", "heat_map", "prog_bar")}
        statistics = None if self.statistics == DEFAULT else self.statistics  # so that a new statistic changes no key
        return self._generate_state_key(**self._choice.options, **options, statistics=statistics)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizers and their layers, and check that the layers and outputs asked for are there."""
        if not self._restored and logged_step(trainer) > 0 and id(pl_module) == self._module_id:
            self._restored = self.state_dict()  # the same Trainer fits the same module again
        self._module_id = id(pl_module)
        self._trackers = track_optimizers(trainer.optimizers)
        self._names = ParameterNames(self._trackers, pl_module)
        self._check_setup(trainer, pl_module)
        self._clipping = find_clipping(trainer, pl_module)
        self._alarms = [Alarms(tracker, self._clipping, self.statistics) for tracker in self._trackers]
        restored, self._restored = self._restored, {}
        self._prepare_outputs(trainer, restored.get("record", {}))
        self._pending = {}  # a fit that failed may have left some
        for tracker in self._trackers:
            if tracker.name in restored:
                tracker.load_state_dict(restored[tracker.name])

            # On every rank, so that EarlyStopping and ModelCheckpoint find the metrics there: the figures are the same.
            self._handles += self._register_hooks(tracker, trainer)
        self._has_begun = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin the first interval: only now does a resumed Trainer know how many batches it has done."""
        if not self._has_begun:
            for tracker in self._trackers:
                tracker.measured_at = logged_step(trainer)
            self._has_begun = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Count the attempt: a step that the gradient scaler skips never reaches the optimizer."""
        for tracker in self._trackers:
            if tracker.optimizer in find_optimizers(optimizer):
                tracker.attempted += 1
                clips = self._clipping.is_on and "unclipped_grad_norm" in self.statistics
                if clips and self._is_due(tracker, trainer):
                    tracker.measure_unclipped()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the measurements of this batch, and warn; of several steps, the last."""
        if not self._handles:
            return
        for tracker, alarms in zip(self._trackers, self._alarms, strict=True):
            self._add_counts(tracker, trainer)
            self._warn([alarms.check_sgd_steps()])
            if tracker.name in self._pending and tracker.measured_at == logged_step(trainer) + 1:
                self._warn(alarms.check(logged_step(trainer)))
                if first := tracker.first_nonfinite():
                    param, step = first
                    self._warn(alarms.check_nonfinite(self._names.find()[param], step))
        for output in self._outputs if self._pending else ():
            output.write(list(self._pending.values()))
        self._pending = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the heat map, unless it was saved a short while ago."""
        self._save_record(self._record.save_if_cheap, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers, and save the heat map."""
        self._remove_hooks()
        self._warn([warning for alarms in self._alarms for warning in alarms.check_end(logged_step(trainer))])
        self._save_record(self._record.save, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers, save what there is, and close an interrupted run as one that has ended."""
        self._remove_hooks()
        with suppress(Exception):  # it must not hide the exception that ended the training
            self._record.save(trainer.loggers)
        if isinstance(exception, (KeyboardInterrupt, SystemExit)):  # as a signal ends a run
            self._print_table(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the closing table; of a resumed run in which nothing was left to train, save the heat map."""
        if self._restored:
            self._prepare_outputs(trainer, self._restored.get("record", {}))
            self._save_record(self._record.save, trainer)
        self._print_table(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the notabilities and the heat map, so that a resumed run goes on with them."""
        if not self._trackers:
            return self._restored
        trackers = {tracker.name: tracker.state_dict() for tracker in self._trackers}
        return trackers | {"record": self._record.state_dict()}

    def on_load_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the state of the only monitor, if it had other options or is of an older version."""
        states = [state for key, state in checkpoint["callbacks"].items() if key.startswith("BeliefMonitor{")]
        if len(states) == 1 and sum(isinstance(callback, BeliefMonitor) for callback in trainer.callbacks) == 1:
            self._restored = states[0]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of the run that is resumed until training starts."""
        self._restored = state_dict

    def notable_layers(self) -> dict[str, Values]:
        """Return the layers of the closing table.

        Returns:
            From a layer's name to its statistics when last measured: the layers included, or the
            most notable, these first. Empty before the first measurement.
        """
        return self._table.layers

    def _prepare_outputs(self, trainer: Any, record: dict[str, Any]) -> None:
        """Make the outputs; the record goes on from that of the run that is resumed."""
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, BeliefMonitor)]
        place = monitors.index(self)
        self._is_first = place == 0
        if not trainer.fast_dev_run:
            self._warn([alarms.check_scaling(trainer.estimated_stepping_batches) for alarms in self._alarms])
        self._record = BeliefRecord(self.statistics, suffix=f"-{place}" if place else "")
        self._record.load_state_dict(record)
        self._table = ClosingTable()
        self._outputs = [Scalars(trainer, self.statistics, self.prog_bar), self._table]
        if self.histograms:
            self._outputs.append(Histograms(trainer))
        if self.heat_map and trainer.is_global_zero:
            self._outputs.append(self._record)
        if self.custom_scalars and trainer.is_global_zero:
            write_layout(trainer.loggers, {name for monitor in monitors for name in monitor.statistics})

    def _check_setup(self, trainer: Any, pl_module: LightningModule) -> None:
        """Raise a MisconfigurationException if the Trainer cannot serve what was asked for."""
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
        if not self._trackers:
            rank_zero_warn(
                "BeliefMonitor logs nothing: the module has no optimizer. Return one, such as "
                "lightning_adabelief.AdaBelief, from configure_optimizers"
            )
            return
        taken = any(map(takes_histograms, trainer.loggers)) or not trainer.is_global_zero
        if self.histograms and not taken and not trainer.fast_dev_run:
            kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            raise MisconfigurationException(
                "BeliefMonitor(histograms=True) needs a TensorBoardLogger or WandbLogger, but "
                f"the Trainer has only: {kinds}. Add one, or leave histograms out"
            )
        names = self._names.find()
        self._choice.set_other_names(names_in_module(pl_module).values())
        of_optimizers = [[names[param] for param in tracker.parameters()] for tracker in self._trackers]
        self._choice.check(of_optimizers, self._names.find_frozen())

    def _is_due(self, tracker: OptimizerTracker, trainer: Any) -> bool:
        return is_due(tracker, trainer, trainer.log_every_n_steps if self.every_n_steps is None else self.every_n_steps)

    def _register_hooks(self, tracker: OptimizerTracker, trainer: Any) -> list[Any]:
        """Measure an optimizer around each of its steps that is due."""

        def is_due() -> bool:
            return self._is_due(tracker, trainer)

        def after_step(*_: Any) -> None:
            tracker.count_step()
            if is_due() and not tracker.is_skipping:
                self._measure(tracker, trainer)

        return tracker.register_hooks(is_due, after_step)

    def _measure(self, tracker: OptimizerTracker, trainer: Any) -> None:
        """Measure the step just taken, if it moved a layer that is measured."""
        names = self._names.find()
        members = tracker.measure(names, self._choice.measures, self._choice.layer_of)
        if not members:
            return
        layers = [name for name in dict.fromkeys(map(self._choice.layer_of, names.values())) if name in tracker.layers]
        shown = self._choice.select(tracker)
        is_only_summary = len(self._trackers) == 1 and SUMMARY_NAME not in tracker.layers
        histograms = {}
        if self.histograms:
            shown_members = {name: members[name] for name in shown}
            histograms = take_logarithms(shown_members, self.statistics, tracker.readable)
        tracker.measured_at = logged_step(trainer) + 1
        self._pending[tracker.name] = Measurement(
            optimizer=tracker.name,
            step=logged_step(trainer),
            layers={name: tracker.layers[name] for name in layers},
            shown=tuple(shown),
            included=tuple(filter(self._choice.includes, layers)),
            summary_name=SUMMARY_NAME if is_only_summary else tracker.name,
            summary=tracker.summary if self._is_first else {},
            groups=tracker.measure_groups() if self._is_first else {},
            histograms=histograms,
        )

    def _add_counts(self, tracker: OptimizerTracker, trainer: Any) -> None:
        """Add the counts of steps to the measurement; skipped steps are logged in between as well."""
        step = logged_step(trainer)
        is_measured = tracker.measured_at == step + 1
        if not self._is_first or not (is_measured or tracker.noticed_skips > tracker.logged_skips):
            return
        nonfinite = {"nonfinite_steps": tracker.nonfinite_steps} if is_measured else {}
        counts = {"skipped_steps": tracker.skipped_steps, **nonfinite}
        measurement = self._pending.get(tracker.name, Measurement(tracker.name, step))
        self._pending[tracker.name] = measurement.with_counts(counts)
        tracker.logged_skips = tracker.noticed_skips

    def _print_table(self, trainer: Any) -> None:
        if self.closing_table and trainer.is_global_zero:
            self._table.print()

    def _save_record(self, save: Callable[[Any], None], trainer: Trainer) -> None:
        """Save the heat map; an error, such as a full disk, does not end the training."""
        try:
            save(trainer.loggers)
        except Exception as error:
            rank_zero_warn(f"BeliefMonitor could not write its heat map: {error}")

    def _warn(self, warnings: Sequence[str | None]) -> None:
        """Give the warnings that there are, unless another monitor does."""
        for warning in filter(None, warnings if self._is_first else ()):
            rank_zero_warn(warning)

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


BeliefMonitor.__doc__ = inspect.cleandoc(BeliefMonitor.__doc__ or "").replace("{statistics}", text_table())
