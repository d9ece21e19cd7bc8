"""The callback by which ``adabelief fit`` stops at a signal, with a checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from lightning_adabelief.cli.signals import StoppedBySignal, handler
from lightning_adabelief.lightning_tree import Callback, LightningModule, Trainer, is_a

NAME = "interrupted.ckpt"
DEAD_WORKER = "DataLoader worker"
"""The first words of torch's errors of workers that have ended."""

AGREEMENT_INTERVAL = 10
"""Batches from one look of all ranks at their signals to the next: each waits for every device."""


class StopOnSignal(Callback):
    """Save a checkpoint after the batch in which a signal came, and stop.

    Lightning's own handling of SIGTERM, which this replaces, saves nothing and ends with status 0.

    Attributes:
        checkpoint: The checkpoint that was saved; None if none was.
        problem: The error of saving it; None if there was none.
    """

    def __init__(self) -> None:
        self.checkpoint: Path | None = None
        self.problem: OSError | None = None
        self._is_agreed = False

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Come after ModelCheckpoint, whose state is in the checkpoint."""
        trainer.callbacks = [*(callback for callback in trainer.callbacks if callback is not self), self]

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handlers, which it has installed by now."""
        handler.install()

    on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look for a signal after each batch."""
        handler.install()
        handler.is_training = True
        handler.ranks = getattr(trainer.strategy.launcher, "procs", ())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a signal came, to whichever rank; several ranks look every :data:`AGREEMENT_INTERVAL` batches.

        Raises:
            StoppedBySignal: If so.
        """
        if trainer.world_size == 1 or batch_idx % AGREEMENT_INTERVAL == 0:
            self._stop_if_told(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save early if a signal came: it may be followed by a kill before a long validation has ended.

        Not with several ranks, whose numbers of batches may differ here.
        """
        if handler.received is not None and handler.is_training and trainer.world_size == 1 and not self.checkpoint:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop as :meth:`on_train_batch_end` does."""
        if handler.is_training:
            self._stop_if_told(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal stop at once again: the training has saved its last checkpoint."""
        handler.is_training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a checkpoint where the signal has ended the data loader's workers first, and stop other ranks."""
        if is_stop(exception) and not isinstance(exception, StoppedBySignal) and trainer.world_size == 1:
            self._save(trainer)
        handler.is_training = False
        if isinstance(exception, StoppedBySignal) and not self._is_agreed:
            for process in getattr(trainer.strategy.launcher, "procs", ()):
                process.terminate()

    def _stop_if_told(self, trainer: Any) -> None:
        self._is_agreed = trainer.strategy.reduce_boolean_decision(handler.received is not None, all=False)
        if self._is_agreed:
            self._save(trainer)
            raise _make_stop(trainer)

    def _save(self, trainer: Any) -> None:
        folders = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
        folder = next(filter(None, folders), None)
        if folder is None or trainer.fast_dev_run:
            return
        try:
            trainer.save_checkpoint(Path(folder, NAME), weights_only=False)
            self.checkpoint = Path(folder, NAME)
        except OSError as problem:
            self.problem = problem


def is_stop(error: BaseException) -> bool:
    """Return True if a training has ended by a signal: so it was told, or the signal has ended its workers."""
    return isinstance(error, StoppedBySignal) or (handler.received is not None and DEAD_WORKER in str(error))


def _make_stop(trainer: Any) -> StoppedBySignal:
    """Make the exception that ends the training; the signal may have come to another rank."""
    stop = StoppedBySignal(handler.received or signal.SIGTERM)
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if is_a(environment, "LightningEnvironment") and trainer.local_rank > 0:
        stop.code = 0  # else Lightning's watch over the processes that it has started would kill the first rank
    return stop
