"""Guards against what can't be written: a log ends no run, and a folder for checkpoints is tried before training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.files import check_writable
from lightning_adabelief.lightning_tree import Callback, LightningModule, is_a, rank_zero_warn

RESULTS = ("config.yaml", "metrics.csv")
"""Files by which a folder of logs is known to hold a run."""

CLOSING_METHODS = ("save", "finalize", "after_save_checkpoint", "flush", "close")
"""Methods of a logger, or of its experiment, that write but are not called ``log_...`` or ``add_...``."""


class Safeguards(Callback):
    """Let a run go on where a logger fails, and end it before training where checkpoints can't be written."""

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Guard the loggers, whose experiments Lightning has made by now; that one can't begin is an error."""
        for logger in trainer.loggers:
            warn = _WarnOnce(logger)
            _guard_methods(logger, warn)
            if is_a(logger, "TensorBoardLogger"):  # callbacks write pictures and events to these directly
                _guard_methods(logger.experiment, warn)
                if getattr(logger.experiment, "file_writer", None) is not None:  # as it is once closed
                    _guard_methods(logger.experiment.file_writer, warn)

    def on_fit_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Try to write into the folders of checkpoints, which Lightning's ModelCheckpoint has chosen by now.

        Raises:
            OSError: If one can't be written; it names the folder.
        """
        folders = {getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks}
        error: OSError | None = None
        if trainer.is_global_zero and not trainer.fast_dev_run:
            for folder in filter(None, folders):
                try:
                    if "://" not in str(folder):
                        check_writable(folder)
                except OSError as problem:
                    error = problem
        error = trainer.strategy.broadcast(error)  # a rank that goes on would wait for this one for ever
        if error is not None:
            raise error


class UsedFolderError(ValueError):
    """The error of a run whose version of the logs is another's.

    Args:
        folder: The folder of that version.
    """

    def __init__(self, folder: Any) -> None:
        super().__init__(
            f"{folder} holds another run, and is left as it is. Give another --trainer.logger.init_args.version, "
            "or none, to number runs"
        )


def refuse_used_folder(trainer: Any) -> None:
    """Refuse a run before it makes its loggers: CSVLogger deletes the metrics of the run before.

    Args:
        trainer: The Trainer, before it runs.

    Raises:
        UsedFolderError: If a logger's folder holds a config or metrics.
    """
    if not trainer.is_global_zero:  # the first rank may have begun
        return
    for logger in trainer.loggers:
        folder = folder_of([logger]) if is_a(logger, "TensorBoardLogger", "CSVLogger") else None
        if folder is not None and any((folder / name).exists() for name in RESULTS):
            raise UsedFolderError(folder)


class _WarnOnce:
    """Warn of the first failure of a logger."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.has_warned = False

    def __call__(self, error: Exception) -> None:
        if self.has_warned:
            return
        self.has_warned = True
        place = getattr(self.logger, "log_dir", None) or self.logger.save_dir
        rank_zero_warn(
            f"{type(self.logger).__name__} could not write{f' to {place}' if place else ''}: {error}. "
            "Training goes on, but some of its log is missing"
        )


def _guard_methods(writer: Any, warn: _WarnOnce) -> None:
    """Replace the methods of one object that write by such as warn where they raise."""
    for name in dir(type(writer)):
        method = getattr(type(writer), name)
        if callable(method) and (name.startswith(("log_", "add_")) or name in CLOSING_METHODS):
            if name not in vars(writer):
                setattr(writer, name, partial(_call_or_warn, getattr(writer, name), warn))


def _call_or_warn(method: Callable[..., Any], warn: _WarnOnce, *args: Any, **kwargs: Any) -> Any:
    try:
        return method(*args, **kwargs)
    except Exception as error:
        warn(error)
        return None


@contextmanager
def silence_tensorboards_thread() -> Iterator[None]:
    """Print no traceback of TensorBoard's thread within a ``with`` block: its error comes again in the next write."""
    before = threading.excepthook

    def print_others(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__name__ != "_AsyncWriterThread":
            before(failure)

    threading.excepthook = print_others
    try:
        yield
    finally:
        threading.excepthook = before
