"""Logging of images, histograms and files, to the loggers that take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightning_adabelief.lightning_tree import is_a


def folder_of(loggers: Iterable[Any]) -> Path | None:
    """Return the folder of the first logger that writes to a local disk; None where none does.

    For loggers other than Lightning's own it is ``save_dir/name/version``, where ModelCheckpoint has
    its folder as well.
    """
    for logger in loggers:
        if is_a(logger, "TensorBoardLogger", "CSVLogger"):
            folder = Path(logger.log_dir)
        elif logger.save_dir and logger.version:
            folder = Path(logger.save_dir, str(logger.name), str(logger.version))
        else:
            continue
        if ":/" not in str(folder):  # a bucket's
            return folder
    return None


def log_numbers(logger: Any, numbers: dict[str, float], step: int) -> None:
    """Log numbers, to TensorBoard in one event: one event each would cost more than measuring them.

    Args:
        logger: The logger.
        numbers: From a tag to its value.
        step: Their step.
    """
    is_tensorboard = is_a(logger, "TensorBoardLogger") and hasattr(logger.experiment, "file_writer")
    with _join_events(logger.experiment) if is_tensorboard else nullcontext():
        logger.log_metrics(numbers, step=step)


def takes_images(logger: Any) -> bool:
    """Return True if :func:`log_image` does something for a logger."""
    return is_a(logger, "TensorBoardLogger", "WandbLogger", "MLFlowLogger")


def log_image(logger: Any, tag: str, pixels: np.ndarray, step: int) -> None:
    """Log an image to TensorBoard, W&B or MLflow (an artifact, the latest); nothing to other loggers.

    Args:
        logger: The logger.
        tag: The image's name.
        pixels: uint8, of shape (height, width, 3).
        step: Its step.
    """
    if is_a(logger, "TensorBoardLogger"):
        logger.experiment.add_image(tag, pixels, step, dataformats="HWC")
    elif is_a(logger, "WandbLogger"):
        logger.log_image(tag, [pixels], step)
    elif is_a(logger, "MLFlowLogger"):
        logger.experiment.log_image(logger.run_id, pixels, f"{tag}.png")


def takes_histograms(logger: Any) -> bool:
    """Return True if :func:`log_histograms` does something for a logger."""
    return is_a(logger, "TensorBoardLogger", "WandbLogger")


def log_histograms(logger: Any, histograms: Mapping[str, Tensor], step: int) -> None:
    """Log histograms to TensorBoard or W&B; nothing to other loggers.

    Args:
        logger: The logger.
        histograms: From a tag to finite values, of any shape but empty.
        step: Their step.
    """
    if is_a(logger, "TensorBoardLogger"):
        for tag, values in histograms.items():
            logger.experiment.add_histogram(tag, values, step)
    elif is_a(logger, "WandbLogger") and histograms:
        import wandb

        logger.log_metrics({tag: wandb.Histogram(values.tolist()) for tag, values in histograms.items()}, step)


class _JoinedEvents:
    """A SummaryWriter's file writer that puts all summaries into one event.

    Args:
        file_writer: The one that writes it, and does all else.
    """

    def __init__(self, file_writer: Any) -> None:
        self._file_writer = file_writer
        self._arguments: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file_writer, name)

    def add_summary(self, summary: Any, global_step: int | None = None, walltime: float | None = None) -> None:
        """Keep a summary; all of them have one step."""
        if self._arguments:
            self._arguments[0].MergeFrom(summary)
        else:
            self._arguments = [summary, global_step, walltime]

    def write(self) -> None:
        """Write the event, if there is one."""
        if self._arguments:
            self._file_writer.add_summary(*self._arguments)


@contextmanager
def _join_events(writer: Any) -> Iterator[None]:
    """Have a SummaryWriter, of torch or tensorboardX, write one event for all that is added meanwhile."""
    file_writer = writer._get_file_writer()
    writer.file_writer = joined = _JoinedEvents(file_writer)
    try:
        yield
        joined.write()
    finally:
        writer.file_writer = file_writer
