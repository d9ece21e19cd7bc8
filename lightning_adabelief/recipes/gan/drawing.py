"""Drawings of a GAN: samples, interpolations and loss curves."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pad, pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from lightning_adabelief.callbacks.belief_monitor.outputs.heat_map import render

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN

SAMPLE_ROWS = 8
"""Rows of the grid of samples; its columns too, where there are no classes."""

INTERPOLATION_STRIPS, IMAGES_PER_STRIP = 4, 9

MIN_IMAGE_SIZE = 64
"""Pixels per side below which images are enlarged, so that they can be seen."""

PAD_VALUE = 0.25
"""The grey between images, in [0, 1]."""

TITLE_HEIGHT = 36
"""Pixels of the bar above a grid that has a title."""

BATCH_SIZE = 500
"""Images generated at a time."""


def choose_labels(gan: GAN, size: int, label: int | None = None) -> Tensor | None:
    """Return labels (size,): all of one class, or of all classes in turn; None if the GAN is unconditional.

    Args:
        gan: The GAN.
        size: Number of labels.
        label: The class; None for all.
    """
    labels = gan.labels_in_turn(size)
    return labels if labels is None or label is None else torch.full_like(labels, label)


@torch.no_grad()
def generate_images(gan: GAN, noise: Tensor, labels: Tensor | None = None) -> Tensor:
    """Turn noise (N, noise_size), and labels (N,) if the GAN is conditional, into images (N, C, H, W) in [0, 1]."""
    batches = []
    for start in range(0, len(noise), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        batches.append(gan(noise[part], None if labels is None else labels[part]))
    return (torch.cat(batches).float() / 2 + 0.5).clamp(0, 1)


def draw_grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Draw images in a grid, small ones enlarged, with padding between them.

    Args:
        images: Images (N, C, H, W) in [0, 1].
        columns: Images per row; None for a square grid.

    Returns:
        A picture (3, height, width), uint8, on the CPU.
    """
    enlarged = interpolate(images, scale_factor=max(1, MIN_IMAGE_SIZE // images.shape[-1]))
    padding = max(2, enlarged.shape[-1] // 8)
    grid = make_grid(enlarged, nrow=columns or ceil(sqrt(len(images))), padding=padding, pad_value=PAD_VALUE)
    return (grid * 255).round().byte().cpu()


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
    return draw_grid(generate_images(gan, noise, choose_labels(gan, size)), columns)


def draw_interpolation(gan: GAN, seed: int, label: int | None = None) -> Tensor:
    """Draw 4 strips of 9 images from one noise to another.

    Args:
        gan: The GAN.
        seed: Seed of the noise.
        label: The class of the images, if the GAN is conditional; None for another in each strip.

    Returns:
        A picture (3, height, width), uint8.
    """
    source = torch.Generator().manual_seed(seed)
    starts, ends = gan.draw_noise(2 * INTERPOLATION_STRIPS, source).unflatten(0, (2, INTERPOLATION_STRIPS, 1))
    # Along a quarter circle the noise keeps its variance; along a line it would shrink towards the middle.
    angles = torch.linspace(0, torch.pi / 2, IMAGES_PER_STRIP, device=ends.device, dtype=ends.dtype).view(1, -1, 1)
    noise = starts * angles.cos() + ends * angles.sin()
    labels = choose_labels(gan, INTERPOLATION_STRIPS, label)
    labels = None if labels is None else labels.repeat_interleave(IMAGES_PER_STRIP)
    return draw_grid(generate_images(gan, noise.flatten(0, 1), labels), IMAGES_PER_STRIP)


def draw_beside_real(gan: GAN, seed: int, real: Tensor) -> Tensor:
    """Draw real images in a grid, and as many generated ones in another to its left, each under its name.

    Args:
        gan: The GAN.
        seed: Seed of the noise.
        real: Real images (N, C, H, W) in [0, 1].

    Returns:
        A picture (3, height, width), uint8.
    """
    noise = gan.draw_noise(len(real), torch.Generator().manual_seed(seed))
    generated = generate_images(gan, noise, choose_labels(gan, len(real)))
    grids = {"generated": draw_grid(generated), "real": draw_grid(real)}
    return torch.cat([_add_title(grid, title) for title, grid in grids.items()], dim=2)


def draw_losses(losses: list[tuple[int, float, float]]) -> Tensor:
    """Draw the losses over the batches.

    Args:
        losses: A row per point: the number of the batch, the critic's loss and the generator's loss.

    Returns:
        A picture (3, height, width), uint8; without curves if there are no losses.
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
    return torch.from_numpy(render(figure)).permute(2, 0, 1)


def _add_title(grid: Tensor, title: str) -> Tensor:
    """Add a bar with a title above a grid, in the colour of its padding."""
    picture = to_pil_image(pad(grid, [0, TITLE_HEIGHT, 0, 0], fill=round(255 * PAD_VALUE)))
    font = ImageFont.load_default(TITLE_HEIGHT * 2 // 3)
    ImageDraw.Draw(picture).text((TITLE_HEIGHT // 3, TITLE_HEIGHT // 6), title, fill="white", font=font)
    return pil_to_tensor(picture)
