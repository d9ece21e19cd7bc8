"""The bases of generators and critics: what all of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalize_spectrally

from lightning_adabelief.recipes.checks import check_counts

BASE_SIZES = (4, 5, 6, 7)
"""Heights and widths of the smallest feature map, where none is given."""


class GANNetwork(nn.Module, ABC):
    """A network whose layers may wait for the size of the data's images.

    One that waits is not complete after its constructor. ``GAN`` then calls :meth:`complete` before it makes the
    optimizers, and a subclass makes its layers in :meth:`make`.

    Attributes:
        image_shape: (C, H, W) of its images, by which the GAN checks that all fits; None where it is not known.
        num_classes: Number of classes; None for an unconditional network.
        is_complete: True once its layers are made.
    """

    image_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    is_complete: bool = True

    def complete(self, image_size: int) -> None:
        """Make the layers for images of a height and width in pixels, unless they are made already."""
        if not self.is_complete:
            self.make(image_size)
            self.is_complete = True

    def make(self, image_size: int) -> None:
        """Make the layers for images of a height and width in pixels."""
        raise NotImplementedError(f"{type(self).__name__} is not complete after its constructor, and has no make")

    @abstractmethod
    def condition_on(self, num_classes: int | None) -> None:
        """Make the network conditional on a class of ``num_classes``; None for no classes."""


class Generator(GANNetwork):
    """A network from noise to images in [-1, 1]; with ``num_classes``, to images of the classes asked for.

    A subclass implements :meth:`draw`. The class is multiplied into the noise, by a learned vector per class.

    Args:
        noise_size: Length of the noise.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Shape:
        Noise (N, noise_size) and labels (N,), to images (N, C, H, W).
    """

    def __init__(self, noise_size: int, num_classes: int | None) -> None:
        super().__init__()
        check_counts(noise_size=noise_size, num_classes=num_classes)
        self.noise_size = noise_size
        self.condition_on(num_classes)

    def condition_on(self, num_classes: int | None) -> None:
        """Draw images of a class of ``num_classes``; None for no classes."""
        self.num_classes = num_classes
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, self.noise_size)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise (N, noise_size), and labels (N,) if it is conditional, into images (N, C, H, W)."""
        if self.embedding is not None:
            noise = noise * self.embedding(labels)
        return self.draw(noise)

    @abstractmethod
    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, C, H, W) in [-1, 1]."""


class Critic(GANNetwork):
    """A network from images to scores; with ``num_classes``, it scores how real an image of its class looks.

    A subclass implements :meth:`features`. The class contributes the inner product of the features with
    a learned vector per class.

    Args:
        features: Number of features; None if :meth:`make` gives it to :meth:`make_score`.
        num_classes: Number of classes; None for an unconditional critic.
        spectral_norm: Divide each weight by its largest singular value.
        bias: Add a learned number to the scores. A Wasserstein loss is blind to it.

    Shape:
        Images (N, C, H, W) and labels (N,), to scores (N,).

    References:
        Miyato and Koyama, cGANs with Projection Discriminator, 2018 (https://arxiv.org/abs/1802.05637).
    """

    def __init__(self, features: int | None, num_classes: int | None, spectral_norm: bool, bias: bool) -> None:
        super().__init__()
        check_counts(features=features, num_classes=num_classes)
        self.num_classes = num_classes
        self.spectral_norm = spectral_norm
        self.bias = bias
        self.num_features: int | None = None
        if features is not None:
            self.make_score(features)

    def make_score(self, features: int) -> None:
        """Make the last layer, from a number of features to a score, and the vectors of the classes."""
        self.num_features = features
        self.score = normalize_if(nn.Linear(features, 1, bias=self.bias), self.spectral_norm)
        self.condition_on(self.num_classes)

    def condition_on(self, num_classes: int | None) -> None:
        """Score images of a class of ``num_classes``; None for no classes."""
        self.num_classes = num_classes
        self.embedding = None
        if num_classes is not None and self.num_features is not None:
            self.embedding = normalize_if(nn.Embedding(num_classes, self.num_features), self.spectral_norm)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn images (N, C, H, W), and labels (N,) if it is conditional, into scores (N,)."""
        features = self.features(images)
        scores = self.score(features).squeeze(1)
        return scores if self.embedding is None else scores + (self.embedding(labels) * features).sum(dim=1)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into features (N, features)."""


def choose_base(base_size: int | None, image_size: int) -> tuple[int, int]:
    """Choose the size of the smallest feature map, and how often it is doubled to give the size of the images.

    Args:
        base_size: Height and width of the smallest feature map; None for one of :data:`BASE_SIZES`.
        image_size: Height and width of the images.

    Returns:
        The size, and the number of doublings, at least 1.

    Raises:
        ValueError: If ``image_size`` is not ``base_size`` times a power of 2, at least 2.

    Example:
        >>> choose_base(None, 64), choose_base(None, 96), choose_base(2, 8)
        ((4, 4), (6, 4), (2, 2))
    """
    sizes = {
        base * 2**doublings: (base, doublings)
        for base in (BASE_SIZES if base_size is None else (base_size,))
        for doublings in range(1, 9)
    }
    if image_size not in sizes:
        below, above = sorted(sizes, key=lambda size: (abs(size - image_size), size))[:2]
        bases = "4, 5, 6 or 7" if base_size is None else str(base_size)
        raise ValueError(
            f"Invalid image_size: {image_size}. Give {bases} times a power of 2, such as {below} or {above}"
        )
    return sizes[image_size]


def normalize_if(layer: nn.Module, spectral_norm: bool) -> nn.Module:
    """Return a layer, with spectral normalization of its weight if that is asked for."""
    return normalize_spectrally(layer) if spectral_norm else layer
