"""Drawings of what a GAN generates: samples, alone and beside real images, and interpolations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adabelief.recipes.gan.grids import draw_classes, draw_grid, draw_side_by_side

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN

SAMPLES = 64
"""Images in a grid of a GAN without classes."""

MAX_CLASSES = 100
"""Classes that are drawn: the first ones of a GAN with more."""

INTERPOLATION_STRIPS, IMAGES_PER_STRIP = 4, 9

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


def count_columns(num_classes: int) -> int:
    """Return the number of images that are drawn of each class: 8, or 4 of many classes."""
    return 8 if num_classes <= 20 else 4


def draw_images(gan: GAN, images: Tensor, labels: Tensor | None, columns: int | None = None) -> Tensor:
    """Draw images in a grid; if they have classes, with a row for each and its name.

    Args:
        gan: The GAN, which knows the names of its classes.
        images: Images (N, C, H, W) in [0, 1].
        labels: Their classes (N,); None for none.
        columns: Images per row; None for a square grid, or as many as one class has, at most 16.

    Returns:
        A picture (3, height, width), uint8.
    """
    if labels is None:
        return draw_grid(images, columns)
    columns = columns or min(16, int(labels.bincount().max()))
    return draw_classes(images, labels, columns, gan.class_names)


def draw_samples(gan: GAN, seed: int) -> Tensor:
    """Draw 64 images; if the GAN is conditional, a row for each class.

    Args:
        gan: The GAN.
        seed: Seed of the noise.

    Returns:
        A picture (3, height, width), uint8.
    """
    labels = None
    if (classes := gan.generator.num_classes) is not None:
        labels = torch.arange(min(classes, MAX_CLASSES), device=gan.device).repeat_interleave(count_columns(classes))
    noise = gan.draw_noise(SAMPLES if labels is None else len(labels), torch.Generator().manual_seed(seed))
    return draw_images(gan, generate_images(gan, noise, labels), labels)


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
    return draw_images(gan, generate_images(gan, noise.flatten(0, 1), labels), labels, IMAGES_PER_STRIP)


def draw_beside_real(gan: GAN, seed: int, real: Tensor, labels: Tensor | None = None) -> Tensor:
    """Draw real images in a grid, and as many generated ones in another to its left, each under its name.

    Args:
        gan: The GAN.
        seed: Seed of the noise.
        real: Real images (N, C, H, W) in [0, 1].
        labels: Their classes (N,), if the GAN is conditional: generated images have the same.

    Returns:
        A picture (3, height, width), uint8.
    """
    noise = gan.draw_noise(len(real), torch.Generator().manual_seed(seed))
    generated = generate_images(gan, noise, labels)
    return draw_side_by_side(
        {name: draw_images(gan, images, labels) for name, images in {"generated": generated, "real": real}.items()}
    )
