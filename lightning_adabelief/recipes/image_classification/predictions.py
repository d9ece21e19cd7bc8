"""The table of a classifier's predictions, ``predictions.csv``."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.files import find_free_path, replace_file
from lightning_adabelief.lightning_tree import BasePredictionWriter
from lightning_adabelief.recipes.image_classification.found_images import make_printable
from lightning_adabelief.recipes.image_classification.image_file import read_rgb
from lightning_adabelief.recipes.image_classification.image_sets import MarkedImages

MAX_NAMED = 3
"""The most files that can't be read whose reasons are printed."""


class PredictionsTable(BasePredictionWriter):
    r"""Write ``predictions.csv`` beside the logs, with a row per image in the order of the data.

    Its columns are ``file`` (``image``, its number from 0, where the data set has no attribute ``files``), ``class``,
    ``probability``, and for each class ``probability_<name>``. Of an image that can't be read, the row has the file
    alone; how many they are, and why, is printed at the end. Where the probabilities are NaN, there is no class. The
    table is UTF-8: other bytes of a file's name are written out, as ``\xff``. Where it exists, another is written:
    ``predictions_1.csv`` and so on.

    Rows go to the disk batch by batch. A run that is stopped leaves those so far as ``predictions.csv.0.part``, of
    each process one, which begin with the image's number.

    Example:
        >>> import pytorch_lightning as pl
        >>> trainer = pl.Trainer(callbacks=[PredictionsTable()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._path = Path()
        self._header: list[str] = []
        self._names: list[str] = []
        self._files: list[str] | None = None
        self._part: Any = None
        self._count = 0
        self._unreadable: list[str] = []
        self._undefined = 0
        self._is_whole = False

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the file, in the folder of the logs, and open this process's part of it."""
        folder = folder_of(trainer.loggers) or Path(trainer.default_root_dir)
        self._path = trainer.strategy.broadcast(_find_free_table(folder))
        self._header, self._count, self._unreadable = [], 0, []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = _open_part(_name_part(self._path, trainer.global_rank), "x")

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of a batch."""
        if not self._header:
            self._begin(trainer, pl_module, prediction.shape[1])
        are_read = batch.are_read.tolist() if isinstance(batch, MarkedImages) else [True] * len(prediction)
        numbers = batch_indices or range(self._count, self._count + len(prediction))
        writer = csv.writer(self._part)
        for number, probabilities, is_read in zip(numbers, prediction.float().tolist(), are_read, strict=True):
            image = number if self._files is None else self._files[number]
            writer.writerow([number, image, *self._make_fields(probabilities, is_read)])
        self._count += len(prediction)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the processes' parts together."""
        self._part.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._is_whole = True
            self._merge_parts(trainer.world_size)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Print where the rows so far are."""
        if self._count and not self._part.closed:
            self._part.close()
            print(f"The rows of {self._count:,} images are in {self._part.name}, each after the image's number")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Print where the table is and which images could not be read, below the progress bar."""
        if self._is_whole:
            print(f"Predictions: {self._path} ({self._count:,} images)")
            _print_unreadable(self._unreadable)
            if self._undefined:
                print(
                    f"The network gives NaN for {self._undefined:,} of the images, so their rows have no class. Take "
                    "an earlier checkpoint, or --trainer.precision 32-true"
                )
        self._is_whole = False

    def _begin(self, trainer: Any, module: Any, classes: int) -> None:
        """Find the names of the files and classes."""
        loaders = trainer.predict_dataloaders
        loader = loaders[0] if isinstance(loaders, list) else loaders
        self._files = getattr(getattr(loader, "dataset", None), "files", None)
        names = module.class_names or getattr(trainer.datamodule, "class_names", None)
        self._names = names if names is not None and len(names) == classes else [str(label) for label in range(classes)]
        self._header = ["image" if self._files is None else "file", "class", "probability"]
        self._header += [f"probability_{name}" for name in self._names]

    def _make_fields(self, probabilities: list[float], is_read: bool) -> list[str]:
        """Return the fields of a row after the image's."""
        if not is_read:
            return [""] * (2 + len(probabilities))
        largest = max(probabilities)
        texts = [f"{probability:.6f}" for probability in probabilities]
        if any(map(math.isnan, probabilities)):
            return ["", "nan", *texts]
        return [self._names[probabilities.index(largest)], f"{largest:.6f}", *texts]

    def _merge_parts(self, world_size: int) -> None:
        """Write the table from the parts, which are removed, and count the rows of all processes."""
        parts = [_name_part(self._path, rank) for rank in range(world_size)]
        self._count = self._undefined = 0
        with ExitStack() as stack:
            rows = [csv.reader(stack.enter_context(_open_part(part, "r"))) for part in parts]
            with replace_file(self._path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(self._header)
                for _, image, *row in heapq.merge(*rows, key=lambda row: int(row[0])):
                    writer.writerow([make_printable(image), *row])
                    self._count += 1
                    if not row[1]:
                        self._unreadable.append(image)
                    elif not row[0]:
                        self._undefined += 1
        for part in parts:
            part.unlink()


def _find_free_table(folder: Path) -> Path:
    """Return the path of a table that no other run has written, or is writing."""

    def is_taken(path: Path) -> bool:
        return path.exists() or _name_part(path, 0).exists()

    return find_free_path(folder / "predictions.csv", is_taken)


def _name_part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.{rank}.part")


def _open_part(path: Path, mode: str) -> Any:
    """Open a part, in which names of files have the bytes that they have on the disk, even those that are no UTF-8."""
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def _print_unreadable(files: list[str]) -> None:
    if not files:
        return
    print(f"{len(files):,} of the images can't be read, so their rows have no class:")
    for reason in _explain_unreadable(files[:MAX_NAMED]):
        print(f"  {make_printable(reason)}")
    if len(files) > MAX_NAMED:
        print(f"  and {len(files) - MAX_NAMED:,} more")


def _explain_unreadable(files: list[str]) -> Iterator[str]:
    for file in files:
        try:
            read_rgb(file)
        except ValueError as error:
            yield str(error)
