"""A trained generator as a program from noise to images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_adabelief.recipes.exportable import Exportable

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN

EXAMPLES = 4
"""The number of images that a program is traced and checked with."""


class ImagesOfNoise(nn.Module):
    """Generate images in [0, 1].

    Args:
        generator: A network from noise, and labels if it is conditional, to images in [-1, 1].

    Shape:
        Noise (N, noise_size) and labels (N,) to images (N, C, H, W).
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise (N, noise_size), and labels (N,) if the generator is conditional, into images in [0, 1]."""
        return self.generator(noise, labels) / 2 + 0.5


def make_exportable(module: GAN) -> Exportable:
    """Make the program of a trained GAN's generator, the averaged one if there is an average.

    Args:
        module: A GAN with the weights of a checkpoint.
    """
    inputs = {"noise": module.draw_noise(EXAMPLES, torch.Generator().manual_seed(0))}
    labels = module.labels_in_turn(EXAMPLES)
    if labels is not None:
        inputs["labels"] = labels
    of_labels = f"; labels, int64 (N,), 0 to {(module.generator.num_classes or 0) - 1}" if labels is not None else ""
    metadata = {
        "input": f"noise, float32 (N, {module.generator.noise_size}), normally distributed{of_labels}",
        "output": "images, float32 (N, C, H, W) in [0, 1]",
        "noise_size": json.dumps(module.generator.noise_size),
        "num_classes": json.dumps(module.generator.num_classes),
        "class_names": json.dumps(module.class_names, ensure_ascii=False),
    }

    def generate(noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return module(noise, labels) / 2 + 0.5

    return Exportable(ImagesOfNoise(module.sampler).eval(), inputs, "images", metadata, generate)
