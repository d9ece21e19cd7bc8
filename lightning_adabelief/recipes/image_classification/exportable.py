"""A trained classifier as a program from images to probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from lightning_adabelief.recipes.exportable import Exportable

if TYPE_CHECKING:
    from lightning_adabelief.recipes.image_classification.module import ImageClassifier

EXAMPLES = 4
"""The number of random images that a program is traced and checked with."""


UNKNOWN_NORMALIZATION = "none: the data of the training had no attributes mean and std"
"""What a program's metadata say where images are taken as they are."""


class ProbabilitiesOfImages(nn.Module):
    """Normalize images, and classify them.

    Args:
        network: A network from normalized images to logits (N, classes).
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Shape:
        Images (N, C, H, W) in [0, 1] to probabilities (N, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) in [0, 1] into probabilities (N, classes)."""
        return self.network((images - self.mean) / self.std).softmax(dim=-1)


def make_exportable(module: ImageClassifier) -> Exportable:
    """Make the program of a trained classifier, from images in [0, 1] to probabilities.

    Args:
        module: A classifier with the weights of a checkpoint.

    Raises:
        ValueError: If the checkpoint does not tell the size of its images.
    """
    trained_on = module.training_images
    if trained_on.shape is None:
        raise ValueError(
            "The checkpoint does not tell the size of its images, as those of earlier versions don't. Train anew, or "
            "resume the training for an epoch"
        )
    channels, height, width = trained_on.shape
    is_known = trained_on.mean is not None and trained_on.std is not None
    mean, std = trained_on.mean or (0.0,), trained_on.std or (1.0,)
    metadata = {
        "input": f"images, float32 (N, {channels}, {height}, {width})"
        + (" in [0, 1]" if is_known else ", normalized as in the training's batches")
        + (", red, green and blue" if channels == 3 and is_known else ""),
        "output": f"probabilities, float32 (N, {module.num_classes})",
        "class_names": json.dumps(module.class_names, ensure_ascii=False),
        **({"mean": json.dumps(mean), "std": json.dumps(std)} if is_known else {}),
        "normalization": "by mean and std, within the program" if is_known else UNKNOWN_NORMALIZATION,
    }
    if module.preprocessing is not None:
        metadata["resize"] = json.dumps(round(module.preprocessing.size / module.preprocessing.crop))
        metadata["crop"] = json.dumps(module.preprocessing.size)
        metadata["interpolation"] = module.preprocessing.interpolation

    def predict(images: Tensor) -> Tensor:
        return module.predict_step(v2.functional.normalize(images, list(mean), list(std)), 0)

    return Exportable(
        program=ProbabilitiesOfImages(module.network, mean, std).eval(),
        inputs={"images": torch.rand(EXAMPLES, *trained_on.shape, generator=torch.Generator().manual_seed(0))},
        output="probabilities",
        metadata=metadata,
        reference=predict,
    )
