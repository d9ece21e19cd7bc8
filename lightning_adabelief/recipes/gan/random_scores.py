"""Scores for images that no network at hand knows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d

from lightning_adabelief.recipes.gan.inception_scores import InceptionScores, find_weights
from lightning_adabelief.recipes.gan.scores import Batch, Scores


class RandomFeatureScores(Scores):
    """Scores on the features of a convolutional network with random weights, the same ones on every machine.

    They are computed as FID and KID are, and need neither a download nor classes. The network knows no objects: it
    sees colours, contrast, sharpness, and roughly where in an image these are. So the distance orders the generators of
    one data set, and says little about what their images show. The scores go by the names ``frechet_random`` and
    ``kernel_random``.

    Args:
        num_samples: Number of generated images to score.

    Raises:
        ValueError: If ``num_samples`` is less than 2.

    References:
        Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020
        (https://arxiv.org/abs/2002.09797), on networks with random weights.
    """

    names = ("frechet_random", "kernel_random")
    num_features = 3 * 64

    BATCH_SIZE = 64
    """Images at a time."""

    def __init__(self, num_samples: int = 1000) -> None:
        super().__init__(num_samples)
        self._network = _RandomNetwork(self.num_features)

    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Move the network to the device."""
        self._network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, None]:
        """Return the features (N, 192), and no logits."""
        parts = images.expand(-1, 3, -1, -1).split(self.BATCH_SIZE)
        return torch.cat([self._network(part) for part in parts]), None


class _RandomNetwork(nn.Module):
    """Three convolutions, after each of which height and width are halved.

    Of each, the mean of every quarter of the image is projected at random onto a third of the features.

    Args:
        num_features: Number of features.
    """

    WIDTHS = (32, 64, 128)
    QUARTERS = 2  # along each side

    def __init__(self, num_features: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        before = 3
        for level, width in enumerate(self.WIDTHS):
            kernel = torch.randn(width, before, 3, 3, generator=source)
            norms = kernel.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            self.register_buffer(f"kernel{level}", kernel / norms * 2**0.5)  # ReLU halves the mean square
            pooled = width * self.QUARTERS**2
            projection = torch.randn(pooled, num_features // len(self.WIDTHS), generator=source)
            self.register_buffer(f"projection{level}", projection / pooled**0.5)
            before = width

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, 3, H, W) in [-1, 1] into features (N, num_features)."""
        features = []
        for level in range(len(self.WIDTHS)):
            images = avg_pool2d(conv2d(images, getattr(self, f"kernel{level}"), padding=1).relu(), 2)
            pooled = adaptive_avg_pool2d(images, self.QUARTERS).flatten(1)
            features.append(pooled @ getattr(self, f"projection{level}"))
        return torch.cat(features, dim=1)


def best_available_scores(num_samples: int = 1000, weights: str | None = None) -> Scores:
    """Make scores for images of any kind: FID if it can be computed without a download, otherwise on random features.

    Args:
        num_samples: Number of generated images to score.
        weights: Path of Inception's weights; None to look where torch-fidelity downloads them to.

    Returns:
        :class:`InceptionScores` if torch-fidelity is installed and the weights are there, otherwise
        :class:`RandomFeatureScores`. The scores' names tell which.

    Raises:
        ValueError: If ``weights`` is given, and torch-fidelity is not installed or there is no such file.
    """
    if weights is None and (found := find_weights()) is None:
        return RandomFeatureScores(num_samples)
    return InceptionScores(weights or str(found), num_samples)
