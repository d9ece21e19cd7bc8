"""Pictures of what is detected, and the table of predictions."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.files import replace_file
from lightning_adabelief.recipes.checks import check_counts, check_probability
from lightning_adabelief.recipes.object_detection.drawing import draw_detections, draw_grid
from lightning_adabelief.recipes.pictures import RunPictures, save_picture

COLUMNS = ("file", "label", "score", "left", "top", "right", "bottom")
"""Columns of ``detections.csv``."""


class Pictures(RunPictures):
    """Draw detected boxes: after each validation and test on its first images, and on every image that is predicted.

    The pictures of a validation or test are a grid: as ``val/detections`` or ``test/detections`` in
    TensorBoard, W&B and MLflow, and as PNG in the folder ``pictures`` beside the logs, where
    ``val-<epoch>.png`` is kept and ``val.png`` is the latest. A box that finds an object of its class is
    blue, another is orange, and an object that is not found is outlined in white.

    ``predict`` leaves ``detections.csv`` (a row per box: file, label, score, left, top, right, bottom in
    pixels; all boxes that the network gives) and the folder ``predictions`` with a picture per image,
    beside the logs; without a logger, in a folder of this run, ``predictions_0``, ``predictions_1``, ..., in the
    Trainer's ``default_root_dir``. Of several processes each has a file and pictures of its own.

    Args:
        count: Number of images that are drawn after a validation or test.
        min_score: The least score, in [0, 1], of a box that is drawn.

    Raises:
        ValueError: If ``count`` is less than 1 or ``min_score`` is not in [0, 1].
    """

    def __init__(self, count: int = 12, min_score: float = 0.5) -> None:
        super().__init__()
        check_counts(count=count)
        check_probability("min_score", min_score)
        self.count = count
        self.min_score = min_score
        self._pictures: list[Tensor] = []
        self._rows: list[tuple[Any, ...]] = []
        self._predicted = 0
        self._folder = Path()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the first images."""
        if not trainer.sanity_checking and trainer.is_global_zero:
            self._draw_batch(pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the first images."""
        if trainer.is_global_zero:
            self._draw_batch(pl_module, outputs, batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log and save the pictures."""
        self._publish(trainer, "val")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Log and save the pictures."""
        self._publish(trainer, "test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the table, in a folder that no other run writes to."""
        self._rows, self._predicted = [], 0
        logs = folder_of(trainer.loggers)
        self._folder = logs or trainer.strategy.broadcast(_find_free_folder(Path(trainer.default_root_dir)))

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save a picture of each image, and add its boxes to the table."""
        names = pl_module.class_names
        folder = self._folder / f"predictions{_name_rank(trainer)}"
        for image, detections in zip(batch[0], outputs, strict=True):
            # Two images in different folders may have the same name: their number tells them apart.
            path = folder / f"{self._predicted:05}-{Path(detections['file']).stem}.png"
            save_picture(draw_detections(image, detections, names, min_score=self.min_score), path)
            self._predicted += 1
            boxes, labels, scores = (detections[name].tolist() for name in ("boxes", "labels", "scores"))
            for box, label, score in zip(boxes, labels, scores, strict=True):
                name = label if names is None else names[label - 1]
                self._rows.append((detections["file"], name, f"{score:.4f}", *(f"{corner:.1f}" for corner in box)))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the table."""
        path = self._folder / f"detections{_name_rank(trainer)}.csv"
        with replace_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *self._rows])
        if trainer.is_global_zero:
            print(f"Boxes: {path}, drawn in {path.parent / 'predictions'}")

    def _draw_batch(self, module: Any, outputs: Any, batch: Any) -> None:
        for image, found, target in zip(batch[0], outputs["detections"], batch[1], strict=True):
            if len(self._pictures) < self.count:
                self._pictures.append(draw_detections(image, found, module.class_names, target, self.min_score))

    def _publish(self, trainer: Any, stage: str) -> None:
        """Log and save the grid of what was drawn."""
        pictures, self._pictures = self._pictures, []
        if not pictures or trainer.fast_dev_run:
            return
        grid = draw_grid(pictures)
        self.log_picture(trainer, f"{stage}/detections", grid, trainer.global_step)
        self.save_picture(stage, grid)
        if stage == "val":
            self.save_picture(f"val-{trainer.current_epoch + 1:04}", grid)


def _find_free_folder(root: Path) -> Path:
    folders = (root / f"predictions_{number}" for number in itertools.count())
    return next(folder for folder in folders if not folder.exists())


def _name_rank(trainer: Any) -> str:
    return f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
