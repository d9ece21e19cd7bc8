"""Logs of a run that is resumed: they go on in its folder, cut to what they held when the checkpoint was saved."""

from __future__ import annotations

import csv
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_adabelief.files import replace_file
from lightning_adabelief.lightning_tree import Callback, LightningModule, is_a, rank_zero_info

CHECKPOINT_KEY = "logs"

METRICS_FILE = "metrics.csv"

EVENT_FILES = "events.out.tfevents.*"


class LogLengths(Callback):
    """Write in each checkpoint how long the logs of TensorBoardLogger and CSVLogger are, all that was logged included.

    From there :func:`continue_logs` goes on with them.
    """

    def on_save_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush the loggers, and add the lengths of their files."""
        if trainer.is_global_zero:
            checkpoint[CHECKPOINT_KEY] = [_measure(logger) for logger in trainer.loggers]


def continue_logs(trainer: Any, ckpt_path: Any) -> bool:
    """Let a resumed run's loggers go on in the folder of the checkpoint's run, and cut what they logged after it.

    They do unless the run has a newer checkpoint, whose logs they would cut (``last.ckpt`` always is the latest),
    or a logger was given another version.

    Args:
        trainer: The Trainer, before it runs.
        ckpt_path: The checkpoint that is to be resumed.

    Returns:
        True if the run goes on in its folder.
    """
    saved = _read_lengths(ckpt_path)
    continued = [
        (logger, lengths)
        for logger, lengths in zip(trainer.loggers, saved, strict=False)
        if lengths is not None and _is_same_run(logger, lengths)
    ]
    if not continued:
        return False
    newer = _find_newer_checkpoint(Path(ckpt_path))
    if newer is not None:
        rank_zero_info(
            f"ckpt_path: {newer} is newer, so that this is a run of its own, in a new folder. Of the old logs, what "
            f"was logged before the checkpoint belongs to it: in {continued[0][1]['folder']}"
        )
        return False
    for logger, lengths in continued:
        logger._version = lengths["version"]
        if trainer.is_global_zero:
            _cut(logger, lengths)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    rank_zero_info(f"ckpt_path: the run goes on in {continued[0][1]['folder']}; its logs are cut to the checkpoint")
    return True


def _measure(logger: Any) -> dict[str, Any] | None:
    """Return where a logger's files are and how long; None of one that is not of Lightning's TensorBoard and CSV."""
    if not is_a(logger, "TensorBoardLogger", "CSVLogger"):
        return None
    folder = Path(logger.log_dir)
    lengths: dict[str, Any] = {"folder": str(folder), "version": logger.version}
    try:
        if is_a(logger, "CSVLogger"):
            logger.save()
            _protect_metrics(logger.experiment)
            path = folder / METRICS_FILE
            lengths["lines"] = path.read_bytes().count(b"\n") if path.is_file() else 0
        else:
            logger.experiment.flush()
            files = folder.rglob(EVENT_FILES)
            lengths["bytes"] = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    except OSError:  # a log must not keep a checkpoint from being saved
        return None
    return lengths


def _read_lengths(ckpt_path: Any) -> list[dict[str, Any] | None]:
    """Return what :class:`LogLengths` has added; nothing of a file that can't be read, of which Lightning tells."""
    if not Path(ckpt_path).is_file():
        return []
    try:
        return torch.load(ckpt_path, map_location="cpu", mmap=True, weights_only=True).get(CHECKPOINT_KEY, [])
    except Exception:
        return []


def _is_same_run(logger: Any, lengths: dict[str, Any]) -> bool:
    """Return True if a logger would write into the folder of the checkpoint's run, were its version that run's."""
    if not is_a(logger, "TensorBoardLogger", "CSVLogger") or logger._version not in (None, lengths["version"]):
        return False
    has_same_kind = ("lines" in lengths) == is_a(logger, "CSVLogger")
    folder = Path(lengths["folder"])
    return has_same_kind and folder.is_dir() and folder.parent.resolve() == Path(logger.root_dir).resolve()


def _find_newer_checkpoint(checkpoint: Path) -> Path | None:
    """Return a checkpoint of the same folder that was saved later; None for ``last.ckpt``, of which none is."""
    if checkpoint.name.startswith("last"):
        return None
    newest = max(checkpoint.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return None if newest.samefile(checkpoint) else newest


def _cut(logger: Any, lengths: dict[str, Any]) -> None:
    folder = Path(lengths["folder"])
    if is_a(logger, "CSVLogger"):
        _cut_metrics(logger, folder / METRICS_FILE, lengths["lines"])
        return
    for path in folder.rglob(EVENT_FILES):
        length = lengths["bytes"].get(str(path.relative_to(folder)))
        if length is None:
            path.unlink()
        elif path.stat().st_size > length:
            content = path.read_bytes()[:length]
            with replace_file(path) as part:
                part.write_bytes(content)


def _cut_metrics(logger: Any, path: Path, lines: int) -> None:
    """Keep the first lines of a CSVLogger's file, which the logger deletes as it begins."""
    kept_aside = path.with_name(f"{path.name}.kept")
    if path.is_file():
        with replace_file(kept_aside) as part:
            part.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Previous log files in this directory will be deleted")
        experiment = logger.experiment
    _protect_metrics(experiment)
    if kept_aside.is_file():  # also that of a process that was killed here
        with kept_aside.open(newline="", encoding="utf-8") as file:
            experiment.metrics_keys = next(csv.reader(file), [])
        kept_aside.replace(path)


def _protect_metrics(writer: Any) -> None:
    """Have a CSVLogger's writer replace its file at once where a new metric takes a column: it empties it first.

    A process that is killed in between would leave no rows, also none of those before the checkpoint.
    """
    if hasattr(writer, "_rewrite_with_new_header"):  # Lightning's own, not a part of what it promises
        writer._rewrite_with_new_header = partial(_rewrite_metrics, Path(writer.metrics_file_path))


def _rewrite_metrics(path: Path, columns: list[str]) -> None:
    """Write a CSVLogger's file anew, with other columns."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with replace_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
