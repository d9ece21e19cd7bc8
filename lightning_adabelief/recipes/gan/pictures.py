"""Pictures of a GAN's training: samples, interpolations and loss curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.files import replace_file
from lightning_adabelief.lightning_tree import Callback, TensorBoardLogger

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN

SAMPLE_ROWS = 8
"""Rows of the grid of samples; its columns too, where there are no classes."""

INTERPOLATION_STRIPS, IMAGES_PER_STRIP = 4, 9

MIN_IMAGE_SIZE = 64
"""Pixels per side below which images are enlarged, so that they can be seen."""


class Pictures(Callback):
    """After each validation, draw samples from fixed noise, interpolations between noises, and loss curves.

    They go to TensorBoard as ``samples``, ``interpolation`` and ``losses``, and as PNG into the folder
    ``pictures`` beside the logs. There ``<name>.png`` is the latest of each, and every grid of samples is
    kept as ``samples-<epoch>.png``.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._latest: dict[str, Tensor] = {}
        self._losses: list[tuple[int, float, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the losses every ``log_every_n_steps`` batches."""
        self._latest |= outputs  # the generator's loss is not in every batch's outputs
        step = _count_batches(trainer) + 1  # Lightning counts the batch after this hook
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0 and "generator_loss" in self._latest:
            critic, generator = (float(self._latest[name]) for name in ("critic_loss", "generator_loss"))
            self._losses.append((step, critic, generator))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the pictures, and log and save them."""
        if trainer.sanity_checking or trainer.fast_dev_run or not trainer.loggers or not trainer.is_global_zero:
            return
        samples, strips = draw_samples(pl_module, self.seed), draw_interpolation(pl_module, self.seed)
        losses = draw_losses(self._losses)
        step = _count_batches(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", samples, step)
                logger.experiment.add_image("interpolation", strips, step)
                logger.experiment.add_figure("losses", losses, step, close=False)  # it is saved below
        logs = folder_of(trainer.loggers)  # not trainer.log_dir, for which every rank must ask
        if logs:
            folder = logs / "pictures"
            for name, picture in (
                (f"samples-{trainer.current_epoch + 1:04}", samples),
                ("samples", samples),
                ("interpolation", strips),
            ):
                with replace_file(folder / f"{name}.png") as part:
                    to_pil_image(picture).save(part, format="png", optimize=True)
            with replace_file(folder / "losses.png") as part:
                losses.savefig(part, format="png", dpi=120)

    def state_dict(self) -> dict[str, Any]:
        """Return the losses so far, so that a resumed run continues their curves."""
        return {"losses": [list(row) for row in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the losses of the run that is resumed."""
        self._losses = [tuple(row) for row in state_dict["losses"]]


def draw_samples(gan: GAN, seed: int) -> Tensor:
    """Draw 8 rows of images; if the GAN is conditional, one column per class.

    Args:
        gan: The GAN.
        seed: Seed of the noise.

    Returns:
        A picture (3, height, width), uint8.
    """
    columns = gan.generator.num_classes or SAMPLE_ROWS
    size = SAMPLE_ROWS * columns
    noise = gan.draw_noise(size, torch.Generator().manual_seed(seed))
    return _draw_grid(gan, noise, gan.labels_in_turn(size), columns)


def draw_interpolation(gan: GAN, seed: int) -> Tensor:
    """Draw 4 strips of 9 images from one noise to another; if the GAN is conditional, each of a class of its own.

    Args:
        gan: The GAN.
        seed: Seed of the noise.

    Returns:
        A picture (3, height, width), uint8.
    """
    source = torch.Generator().manual_seed(seed)
    starts, ends = gan.draw_noise(2 * INTERPOLATION_STRIPS, source).unflatten(0, (2, INTERPOLATION_STRIPS, 1))
    # Along a quarter circle the noise keeps its variance; along a line it would shrink towards the middle.
    angles = torch.linspace(0, torch.pi / 2, IMAGES_PER_STRIP, device=ends.device, dtype=ends.dtype).view(1, -1, 1)
    noise = starts * angles.cos() + ends * angles.sin()
    labels = gan.labels_in_turn(INTERPOLATION_STRIPS)
    labels = None if labels is None else labels.repeat_interleave(IMAGES_PER_STRIP)
    return _draw_grid(gan, noise.flatten(0, 1), labels, IMAGES_PER_STRIP)


def draw_losses(losses: list[tuple[int, float, float]]) -> Figure:
    """Draw the losses over the batches.

    Args:
        losses: A row per point: the number of the batch, the critic's loss and the generator's loss.

    Returns:
        The figure; without curves if there are no losses.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    if losses:
        batches, critic, generator = zip(*losses, strict=True)
        axes.plot(batches, critic, label="critic", color="tab:blue")
        axes.plot(batches, generator, label="generator", color="tab:orange")
        axes.legend(frameon=False)
    axes.set(xlabel="batches", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@torch.no_grad()
def _draw_grid(gan: GAN, noise: Tensor, labels: Tensor | None, columns: int) -> Tensor:
    """Draw a grid of generated images, enlarged and with padding between them."""
    images = (gan(noise, labels).float() / 2 + 0.5).clamp(0, 1)
    enlarged = interpolate(images, scale_factor=max(1, MIN_IMAGE_SIZE // images.shape[-1]))
    padding = max(2, enlarged.shape[-1] // 8)
    return (make_grid(enlarged, nrow=columns, padding=padding, pad_value=0.25) * 255).round().byte().cpu()


def _count_batches(trainer: Any) -> int:
    """Return the number of completed batches: the step that Lightning passes to loggers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
