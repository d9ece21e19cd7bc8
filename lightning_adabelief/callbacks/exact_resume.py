"""A callback that makes a resumed run the uninterrupted one, to the bit."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from lightning_adabelief.callbacks.generator_states import States, collect_states, gather_from_ranks, restore_states
from lightning_adabelief.callbacks.place_in_epoch import (
    collect_gradients,
    describe_place,
    finish_batch,
    finish_epoch,
    list_differences,
    log_unlogged,
    make_iterator,
    make_validation_workers,
    restore_gradients,
    skip_batches,
)
from lightning_adabelief.callbacks.running_means import collect_means, restore_means
from lightning_adabelief.lightning_tree import Callback, LightningModule, rank_zero_info

CHECKPOINT_KEY = "exact_resume"

DRAWN_ANEW = "the order of the data, dropout and augmentation are drawn anew"


class ExactResume(Callback):
    """Make a resumed run the uninterrupted one, to the bit: keep all random states in every checkpoint.

    They are torch's (the CPU's and the accelerator's), NumPy's and Python's, of each rank: those at the time, and
    those at the start of the epoch. Where a run goes on within an epoch, the epoch's order is drawn again from the
    latter; batches that were trained on are loaded, so that workers draw what they drew, and left out.

    Where a resumed run can't be the uninterrupted one, a line says why: another number of ranks, workers or
    batches, persistent workers, gradients that several ranks were accumulating, a checkpoint without random states. A
    generator that a module or data set has of its own is theirs to save.

    The command ``adabelief`` has this callback. It is of use with any module, optimizers and data. List it before
    callbacks that draw random numbers.

    Example:
        >>> import pytorch_lightning as pl
        >>> from lightning_adabelief.callbacks import ExactResume
        >>> trainer = pl.Trainer(callbacks=[ExactResume()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._at_epoch_start: States | None = None
        self._before_validation: States | None = None
        self._resumed: dict[str, Any] | None = None  # what the checkpoint holds, until it is restored

    def on_save_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random states of all ranks, and the place in the epoch."""
        now, is_within_validation = collect_states(trainer.strategy.root_device), False
        if trainer.validating and self._before_validation is not None:  # which is to be begun again
            now, is_within_validation = self._before_validation, True
        states = {"now": now, "at_epoch_start": self._at_epoch_start, "means": collect_means(trainer)}
        place = describe_place(trainer, is_within_validation)
        gradients = collect_gradients(pl_module) if place["has_accumulated"] and trainer.world_size == 1 else {}
        checkpoint[CHECKPOINT_KEY] = {
            "ranks": gather_from_ranks(states, trainer.world_size),
            "place": place,
            "gradients": gradients,
        }

    def on_load_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until training starts; a test or a validation has no use for them."""
        if trainer.state.fn != "fit":
            return
        self._resumed = checkpoint.get(CHECKPOINT_KEY)
        if self._resumed is None:
            rank_zero_info(f"ckpt_path: the checkpoint holds no random states; {DRAWN_ANEW}")
            return
        finish_batch(checkpoint["loops"]["fit_loop"], self._resumed["place"])
        count = len(self._resumed["ranks"])
        if count != trainer.world_size:
            of = f"{count} in the checkpoint and {trainer.world_size} in this run"
            rank_zero_info(f"ckpt_path: the number of ranks is {of}; {DRAWN_ANEW}")
            self._resumed = None

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Prepare to act between the start of an epoch and its first batch, where Lightning has no hook."""
        loop = trainer.fit_loop.epoch_loop
        loop.on_run_start = partial(self._begin_batches, trainer)
        if self._resumed is not None:
            # It is as good as resumable.
            warnings.filterwarnings("ignore", ".*ended before the epoch ended and your dataloader is not resumable")
            trainer.callback_metrics.update(self._resumed["place"]["metrics"])
            make_validation_workers(trainer, self._resumed["place"])
            for line in list_differences(trainer, self._resumed["place"]):
                rank_zero_info(f"ckpt_path: {line}")

    def on_train_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Restore the states of a checkpoint that was saved at an epoch's end."""
        if self._resumed is None:
            return
        resumed, self._resumed = self._resumed, None
        restore_states(resumed["ranks"][trainer.global_rank]["now"], trainer.strategy.root_device)
        finish_epoch(trainer, resumed["place"])

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the states before a validation, for a checkpoint within it."""
        is_due = trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        self._before_validation = collect_states(trainer.strategy.root_device) if is_due else None

    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Forget the states before the validation."""
        self._before_validation = None

    def on_fit_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Log what the checkpoint's run had not logged yet, if it was over and there was nothing to train."""
        if self._resumed is not None:
            log_unlogged(trainer, self._resumed["place"])
        self._leave(trainer)

    def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the Trainer's loop as it was."""
        self._leave(trainer)

    def _leave(self, trainer: Any) -> None:
        vars(trainer.fit_loop.epoch_loop).pop("on_run_start", None)
        self._resumed = None

    def _begin_batches(self, trainer: Any, data_fetcher: Any) -> None:
        """Keep the states from which an epoch's order is drawn, or restore them, and go on as Lightning does."""
        loop = trainer.fit_loop.epoch_loop
        if self._resumed is None:
            self._at_epoch_start = collect_states(trainer.strategy.root_device)
            make_iterator(trainer, data_fetcher)
        else:
            self._go_on_within_epoch(trainer, data_fetcher)
        type(loop).on_run_start(loop, data_fetcher)

    def _go_on_within_epoch(self, trainer: Any, data_fetcher: Any) -> None:
        assert self._resumed is not None
        device = trainer.strategy.root_device
        fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        states, place = self._resumed["ranks"][trainer.global_rank], self._resumed["place"]
        self._at_epoch_start = states["at_epoch_start"]
        done = loop.batch_progress.current.ready
        if loop._num_ready_batches_reached():
            data_fetcher.done = True  # what is left of the epoch is its end
        elif self._at_epoch_start is not None:
            rank_zero_info(
                f"ckpt_path: epoch {trainer.current_epoch} goes on after batch {done} of "
                f"{trainer.num_training_batches}; the batches before are loaded again, and left out"
            )
            restore_states(self._at_epoch_start, device)
            make_iterator(trainer, data_fetcher)
            skip_batches(data_fetcher, done)
        restore_states(states["now"], device)
        restore_gradients(trainer.lightning_module, self._resumed["gradients"])
        if place["is_at_batch_end"]:
            log_unlogged(trainer, place)
        fit_loop._last_train_dl_reload_epoch = place["loaders_made_in_epoch"]
        if not getattr(fit_loop, "restarted_on_epoch_end", False):  # with max_steps, an epoch's end comes once more
            restore_means(trainer, trainer.lightning_module, states["means"])
            fit_loop._restarting = False  # or schedules that depend on a metric miss the end of this epoch
            self._resumed = None
