"""What a generator draws, and how the game goes: samples, interpolations and loss curves, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lightning_adabelief.lightning_tree import Callback, TensorBoardLogger

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN

ROWS = 8
STRIPS, STEPS = 4, 9
LEAST_SIZE = 64
"""Pixels a side under which images are enlarged."""


class Pictures(Callback):
    """After each validation, draw samples from fixed noise, interpolations between them, and loss curves.

    They go to TensorBoard as ``samples``, ``interpolation`` and ``losses``, and beside the logs into
    ``pictures/``: there the latest of each is ``<name>.png``, and each grid of samples is kept, as
    ``samples-<epoch>.png``.

    Args:
        seed: Of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._latest: dict[str, Tensor] = {}
        self._losses: list[tuple[int, float, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the losses, where the Trainer logs."""
        self._latest |= outputs
        step = _batches(trainer) + 1  # counted after this
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0 and "generator_loss" in self._latest:
            critic, generator = (float(self._latest[name]) for name in ("critic_loss", "generator_loss"))
            self._losses.append((step, critic, generator))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw."""
        if trainer.sanity_checking or trainer.fast_dev_run or not trainer.loggers or not trainer.is_global_zero:
            return
        samples, strips = draw_samples(pl_module, self.seed), draw_interpolation(pl_module, self.seed)
        losses = draw_losses(self._losses)
        step = _batches(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", samples, step)
                logger.experiment.add_image("interpolation", strips, step)
                logger.experiment.add_figure("losses", losses, step, close=False)
        if trainer.log_dir:
            folder = Path(trainer.log_dir) / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            for name, picture in (
                (f"samples-{trainer.current_epoch + 1:04}", samples),
                ("samples", samples),
                ("interpolation", strips),
            ):
                to_pil_image(picture).save(folder / f"{name}.png", optimize=True)
            losses.savefig(folder / "losses.png", dpi=120)

    def state_dict(self) -> dict[str, Any]:
        """The losses so far, for a resumed run to go on with."""
        return {"losses": [list(row) for row in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the losses of the run that is resumed."""
        self._losses = [tuple(row) for row in state_dict["losses"]]


def draw_samples(gan: GAN, seed: int) -> Tensor:
    """Draw 8 rows of images; with classes, a class a column.

    Returns:
        A picture (3, height, width), uint8.
    """
    columns = gan.generator.num_classes or ROWS
    noise = gan.draw_noise(ROWS * columns, torch.Generator().manual_seed(seed))
    return _picture(gan, noise, gan.labels_in_turn(ROWS * columns), columns)


def draw_interpolation(gan: GAN, seed: int) -> Tensor:
    """Draw 4 strips of images, each from one noise to another over the sphere; with classes, a class a strip.

    Returns:
        A picture (3, height, width), uint8.
    """
    ends = gan.draw_noise(2 * STRIPS, torch.Generator().manual_seed(seed)).unflatten(0, (2, STRIPS, 1))
    angles = torch.linspace(0, torch.pi / 2, STEPS, device=ends.device, dtype=ends.dtype).view(1, STEPS, 1)
    noise = ends[0] * angles.cos() + ends[1] * angles.sin()
    labels = gan.labels_in_turn(STRIPS)
    labels = None if labels is None else labels.repeat_interleave(STEPS)
    return _picture(gan, noise.flatten(0, 1), labels, STEPS)


def draw_losses(losses: list[tuple[int, float, float]]) -> Figure:
    """Draw the losses over the batches.

    Args:
        losses: Rows of the batch's number, the critic's and the generator's loss.
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
def _picture(gan: GAN, noise: Tensor, labels: Tensor | None, columns: int) -> Tensor:
    images = (gan(noise, labels).float() / 2 + 0.5).clamp(0, 1)
    enlarged = interpolate(images, scale_factor=max(1, LEAST_SIZE // images.shape[-1]))
    padding = max(2, enlarged.shape[-1] // 8)
    return (make_grid(enlarged, nrow=columns, padding=padding, pad_value=0.25) * 255).round().byte().cpu()


def _batches(trainer: Any) -> int:
    """The batches that are over: the step that loggers are given."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
