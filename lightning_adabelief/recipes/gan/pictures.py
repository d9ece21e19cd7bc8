"""Pictures of a GAN's training, drawn after each validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.recipes.gan.drawing import draw_beside_real, draw_interpolation, draw_losses, draw_samples
from lightning_adabelief.recipes.pictures import RunPictures

MAX_REAL = 64
"""The number of real images that are drawn beside generated ones."""


class Pictures(RunPictures):
    """After each validation, draw samples from fixed noise, interpolations between noises, and loss curves.

    They go to TensorBoard, W&B and MLflow as ``samples``, ``beside_real`` (samples beside as many validation
    images), ``interpolation`` and ``losses``, and as PNG into the folder ``pictures`` beside the logs. There
    ``<name>.png`` is the latest of each, and every grid of samples is kept as ``samples-<epoch>.png``. A run
    that begins anew in the folder of another leaves the other's pictures, and has ``pictures-2``.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._latest: dict[str, Tensor] = {}
        self._losses: list[tuple[int, float, float]] = []
        self._real: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the losses every ``log_every_n_steps`` batches."""
        self._latest |= outputs  # the generator's loss is not in every batch's outputs
        step = _count_batches(trainer) + 1  # Lightning counts the batch after this hook
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0 and "generator_loss" in self._latest:
            critic, generator = (float(self._latest[name]) for name in ("critic_loss", "generator_loss"))
            self._losses.append((step, critic, generator))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to collect real images."""
        self._real = []

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first real images, to be drawn beside generated ones."""
        missing = MAX_REAL - sum(map(len, self._real))
        if missing > 0 and trainer.is_global_zero:
            self._real.append(batch[0][:missing].float())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the pictures, and log and save them."""
        if trainer.sanity_checking or trainer.fast_dev_run or not trainer.loggers or not trainer.is_global_zero:
            return
        pictures = {
            "samples": draw_samples(pl_module, self.seed),
            "beside_real": draw_beside_real(pl_module, self.seed, torch.cat(self._real)),
            "interpolation": draw_interpolation(pl_module, self.seed),
            "losses": draw_losses(self._losses),
        }
        for name, picture in pictures.items():
            self.log_picture(trainer, name, picture, _count_batches(trainer))
            self.save_picture(name, picture)
        self.save_picture(f"samples-{trainer.current_epoch + 1:04}", pictures["samples"])

    def state_dict(self) -> dict[str, Any]:
        """Return the losses so far, so that a resumed run continues their curves."""
        return {"losses": [list(row) for row in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the losses of the run that is resumed."""
        self._losses = [tuple(row) for row in state_dict["losses"]]


def _count_batches(trainer: Any) -> int:
    """Return the number of completed batches: the step that Lightning passes to loggers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
