"""Pictures of a GAN's training, drawn after each validation."""

from __future__ import annotations

import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from lightning_adabelief.recipes.gan.curves import Validation, draw_distances, draw_losses, find_best
from lightning_adabelief.recipes.gan.drawing import draw_beside_real, draw_interpolation, draw_samples
from lightning_adabelief.recipes.gan.evaluation import PLAIN, Evaluation
from lightning_adabelief.recipes.gan.real_images import RealImages
from lightning_adabelief.recipes.pictures import RunPictures


class Pictures(RunPictures):
    """After each validation, draw samples from fixed noise, interpolations between noises, and curves.

    They go to TensorBoard, W&B and MLflow as ``samples``, ``beside_real`` (samples beside as many validation
    images), ``interpolation``, ``losses`` and, if the GAN has scores, ``distance`` (the Fréchet distance over the
    run), and as PNG into the folder ``pictures`` beside the logs. There ``<name>.png`` is the latest of each, every
    grid of samples is kept as ``samples-<epoch>.png``, and that of the least distance as ``best_samples.png``. A run
    that begins anew in the folder of another leaves the other's pictures, and has ``pictures-2``.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._latest: dict[str, Tensor] = {}
        self._losses: list[tuple[int, float, float]] = []
        self._validations: list[Validation] = []
        self._best_samples: Tensor | None = None
        self._real = RealImages(None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the losses every ``log_every_n_steps`` batches."""
        self._latest |= outputs  # the generator's loss is not in every batch's outputs
        step = _count_batches(trainer) + 1  # Lightning counts the batch after this hook
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0 and "generator_loss" in self._latest:
            critic, generator = (float(self._latest[name]) for name in ("critic_loss", "generator_loss"))
            self._losses.append((step, critic, generator))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to collect real images."""
        self._real = RealImages(pl_module.generator.num_classes)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first real images, to be drawn beside generated ones."""
        if trainer.is_global_zero:
            self._real.add(*batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the pictures, and log and save them."""
        if trainer.sanity_checking or trainer.fast_dev_run or not trainer.loggers or not trainer.is_global_zero:
            return
        pictures = {
            "samples": draw_samples(pl_module, self.seed),
            "beside_real": draw_beside_real(pl_module, self.seed, *self._real.collect()),
            "interpolation": draw_interpolation(pl_module, self.seed),
            "losses": draw_losses(self._losses),
        }
        if pl_module.evaluation is not None and trainer.state.fn == "fit":
            self._record_distances(trainer, pl_module.evaluation, pictures["samples"])
            pictures["distance"] = self._draw_distances(pl_module.evaluation)
        for name, picture in pictures.items():
            self.log_picture(trainer, name, picture, _count_batches(trainer))
            self.save_picture(name, picture)
        self.save_picture(f"samples-{trainer.current_epoch + 1:04}", pictures["samples"])

    def state_dict(self) -> dict[str, Any]:
        """Return the losses and distances so far and the best samples, so that a resumed run continues with them."""
        return {
            "losses": [list(row) for row in self._losses],
            "validations": [vars(validation) for validation in self._validations],
            "best_samples": None if self._best_samples is None else _encode(self._best_samples),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curves of the run that is resumed, and its best samples."""
        self._losses = [tuple(row) for row in state_dict["losses"]]
        self._validations = [Validation(**row) for row in state_dict.get("validations", [])]
        if state_dict.get("best_samples") is not None:  # earlier versions did not keep them
            self._best_samples = _decode(state_dict["best_samples"])
            self.save_picture("best_samples", self._best_samples)

    def _record_distances(self, trainer: Any, evaluation: Evaluation, samples: Tensor) -> None:
        """Record what a validation measured, and keep its samples if they are the best so far."""
        metrics, name = trainer.callback_metrics, f"val/{evaluation.scores.names[0]}"
        distances = {"generator": float(metrics[name])}
        if f"{name}{PLAIN}" in metrics:
            distances = {"average": distances["generator"], "plain": float(metrics[f"{name}{PLAIN}"])}
        batches = _count_batches(trainer) + 1  # Lightning counts the last one after this hook
        validation = Validation(trainer.current_epoch + 1, batches, distances)
        self._validations.append(validation)
        if find_best(self._validations) is validation:
            self._best_samples = samples
            self.save_picture("best_samples", samples)

    def _draw_distances(self, evaluation: Evaluation) -> Tensor:
        references = {"untrained": evaluation.untrained, "real images": evaluation.floor}
        return draw_distances(
            self._validations,
            evaluation.scores.names[0],
            {name: distance for name, distance in references.items() if distance is not None},
            self._best_samples,
        )


def _count_batches(trainer: Any) -> int:
    """Return the number of completed batches: the step that Lightning passes to loggers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def _encode(picture: Tensor) -> Tensor:
    """Return a picture, uint8 (3, height, width), as the bytes of a PNG: a fraction of its size in a checkpoint."""
    file = io.BytesIO()
    to_pil_image(picture).save(file, format="png")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _decode(png: Tensor) -> Tensor:
    with Image.open(io.BytesIO(png.cpu().numpy().tobytes())) as picture:
        return pil_to_tensor(picture)
