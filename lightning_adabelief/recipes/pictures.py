"""Pictures of a run: in its loggers, and as PNG beside its logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of, log_image, takes_images
from lightning_adabelief.files import replace_file
from lightning_adabelief.lightning_tree import Callback


class RunPictures(Callback):
    """The base of callbacks that draw pictures of a run.

    The pictures go to TensorBoard, W&B and MLflow, and into the folder ``pictures`` beside the logs. A run
    that begins anew where another has left pictures has the folder ``pictures-2``, ``pictures-3`` and so on.

    Attributes:
        folder: The folder; None without a logger that writes to a local disk, and but for the first process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Choose the folder, before anything is drawn."""
        logs = folder_of(trainer.loggers) if trainer.is_global_zero else None  # trainer.log_dir waits for all ranks
        self.folder = _choose_folder(logs, goes_on=trainer.global_step > 0) if logs else None

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        if self.folder:
            self.folder = _choose_folder(self.folder.parent, goes_on=True)

    def log_picture(self, trainer: Any, tag: str, picture: Tensor, step: int) -> None:
        """Log a picture to the loggers that take pictures.

        Args:
            trainer: The Trainer.
            tag: The picture's name.
            picture: uint8 (3, height, width).
            step: Its step.
        """
        for logger in trainer.loggers:
            if takes_images(logger):
                log_image(logger, tag, picture.permute(1, 2, 0).numpy(), step)

    def save_picture(self, name: str, picture: Tensor) -> None:
        """Save a picture, uint8 (3, height, width), as ``<name>.png`` in the folder, if there is one."""
        if self.folder:
            save_picture(picture, self.folder / f"{name}.png")


def save_picture(picture: Tensor, path: Path) -> None:
    """Save a picture as PNG.

    Args:
        picture: uint8 (1, height, width) or (3, height, width).
        path: The file; folders that are missing are made.

    Raises:
        OSError: If it can't be written; the error names it.
    """
    with replace_file(path) as part:
        to_pil_image(picture).save(part, format="png")


def _choose_folder(logs: Path, goes_on: bool) -> Path:
    """Return the first folder that is not there yet; for a run that goes on, the latest."""
    latest = unused = logs / "pictures"
    number = 1
    while unused.exists():
        number += 1
        latest, unused = unused, logs / f"pictures-{number}"
    return latest if goes_on else unused
