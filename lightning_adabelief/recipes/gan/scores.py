"""Scores of generated images against real ones, on the features of a network that knows such images."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

Batch = tuple[Tensor, Tensor]


class Scores(ABC):
    """A network on whose features real and generated images are compared, and the names of the scores.

    Args:
        num_samples: Number of generated images to score. Distances depend on it: compare only distances of
            the same number.

    Attributes:
        names: The names of the Fréchet distance, the kernel distance and, if there are logits, the inception score.
        num_features: Number of features.

    Raises:
        ValueError: If ``num_samples`` is less than 2.
    """

    names: tuple[str, ...]
    num_features: int

    def __init__(self, num_samples: int) -> None:
        if num_samples < 2:
            raise ValueError(f"Invalid num_samples: {num_samples}. Give 2 or more; some thousands where time allows")
        self.num_samples = num_samples

    @abstractmethod
    def prepare(self, batches: Iterable[Batch], device: torch.device, quickly: bool = False) -> None:
        """Make the network, the first time it is called.

        Args:
            batches: Training images (N, C, H, W) in [-1, 1] and their labels (N,); iterable repeatedly.
            device: The device of the images.
            quickly: Skip training and loading, for a run that only checks that all works.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn images (N, C, H, W) in [-1, 1] into features (N, num_features) and logits (N, num_classes).

        There are no logits from a network that knows no classes.
        """

    def count_classes(self, logits: Tensor) -> dict[str, float]:
        """Return further scores by name, computed from the logits (N, num_classes) of the generated images alone."""
        return {}


class Comparison:
    """A comparison of real and generated images, batch by batch.

    Args:
        scores: The network to compare them with.
        device: The device of the images.
    """

    KERNEL_SUBSET_SIZE = 100
    """Images per subset of the kernel distance, if there are that many."""

    def __init__(self, scores: Scores, device: torch.device) -> None:
        self.scores = scores
        self.device = device
        features = _ExtractedFeatures(scores.num_features)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric .* will save all extracted features")
            self.frechet = FrechetInceptionDistance(feature=features, reset_real_features=False).to(device)
            self.kernel = KernelInceptionDistance(
                feature=features, subset_size=self.KERNEL_SUBSET_SIZE, reset_real_features=False
            ).to(device)
            self.inception = InceptionScore(feature=features).to(device)
        self.counts = {True: 0, False: 0}  # real and generated images

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            images: Images (N, C, H, W) in [-1, 1].
            real: True for real images, False for generated ones.
        """
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.scores.extract(images.float())
        self.frechet.update(features, real=real)
        self.kernel.update(features, real=real)
        if not real and logits is not None:
            self.inception.update(logits)
        self.counts[real] += len(images)

    def forget_generated(self) -> None:
        """Begin anew with the generated images; the real ones stay, so that others can be compared with them."""
        for metric in (self.frechet, self.kernel, self.inception):
            metric.reset()
        self.counts[False] = 0

    def compute(self) -> dict[str, float]:
        """Return the scores by name, the Fréchet distance first.

        The Fréchet distance is NaN if a generated image has values that are not finite.
        """
        self.kernel.subset_size = min(self.KERNEL_SUBSET_SIZE, *self.counts.values())
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*degrees of freedom")  # the deviation over a single subset
            torch.manual_seed(0)  # the kernel distance draws its subsets at random
            values = [self._compute_frechet(), self.kernel.compute()[0]]
            logits = _to_list(self.inception.features)
            if logits:
                values.append(self.inception.compute()[0])
        named = {name: float(value) for name, value in zip(self.scores.names, values, strict=True)}
        return named | (self.scores.count_classes(torch.cat(logits)) if logits else {})

    def _compute_frechet(self) -> Tensor:
        sums = self.frechet.fake_features_sum  # not finite as soon as one image is not
        return self.frechet.compute() if sums.isfinite().all() else sums.new_tensor(torch.nan)


class _ExtractedFeatures(nn.Module):
    """A stand-in for torchmetrics' network: features are extracted once, for all three scores."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _to_list(features: Tensor | list[Tensor]) -> list[Tensor]:
    return features if isinstance(features, list) else [features]
