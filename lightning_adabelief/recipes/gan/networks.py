"""Generators and critics: those of DCGAN, and the residual ones of SN-GAN."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.nn.utils.parametrizations import spectral_norm as normalize_spectrally

from lightning_adabelief.recipes.checks import check_counts


class Generator(nn.Module, ABC):
    """A network from noise to images in [-1, 1]; with ``num_classes``, to images of the classes asked for.

    A subclass implements :meth:`draw`. The class is multiplied into the noise, by a learned vector per class.

    Args:
        noise_size: Length of the noise.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Shape:
        Noise (N, noise_size) and labels (N,), to images (N, C, H, W).

    Attributes:
        image_shape: (C, H, W) of its images, by which the GAN checks that all fits; None where it is not known.
    """

    image_shape: tuple[int, int, int] | None = None

    def __init__(self, noise_size: int, num_classes: int | None) -> None:
        super().__init__()
        check_counts(noise_size=noise_size, num_classes=num_classes)
        self.noise_size = noise_size
        self.num_classes = num_classes
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, noise_size)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise (N, noise_size), and labels (N,) if it is conditional, into images (N, C, H, W)."""
        if self.embedding is not None:
            noise = noise * self.embedding(labels)
        return self.draw(noise)

    @abstractmethod
    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, C, H, W) in [-1, 1]."""


class Critic(nn.Module, ABC):
    """A network from images to scores; with ``num_classes``, it scores how real an image of its class looks.

    A subclass implements :meth:`features`. The class contributes the inner product of the features with
    a learned vector per class.

    Args:
        features: Number of features.
        num_classes: Number of classes; None for an unconditional critic.
        spectral_norm: Divide each weight by its largest singular value.
        bias: Add a learned number to the scores. A Wasserstein loss is blind to it.

    Shape:
        Images (N, C, H, W) and labels (N,), to scores (N,).

    References:
        Miyato and Koyama, cGANs with Projection Discriminator, 2018 (https://arxiv.org/abs/1802.05637).

    Attributes:
        image_shape: (C, H, W) of the images that it scores; None where they may have any.
    """

    image_shape: tuple[int, int, int] | None = None

    def __init__(self, features: int, num_classes: int | None, spectral_norm: bool, bias: bool) -> None:
        super().__init__()
        check_counts(features=features, num_classes=num_classes)
        self.num_classes = num_classes
        self.score = _normalize_if(nn.Linear(features, 1, bias=bias), spectral_norm)
        self.embedding = (
            None if num_classes is None else _normalize_if(nn.Embedding(num_classes, features), spectral_norm)
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn images (N, C, H, W), and labels (N,) if it is conditional, into scores (N,)."""
        features = self.features(images)
        scores = self.score(features).squeeze(1)
        return scores if self.embedding is None else scores + (self.embedding(labels) * features).sum(dim=1)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into features (N, features)."""


class DCGANGenerator(Generator):
    """DCGAN's generator: transposed convolutions with batch normalization.

    Each doubles height and width and halves the channels.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2.
        base_size: Height and width of the first feature map.
        channels: Channels of the images: 1 for grayscale, 3 for RGB.
        noise_size: Length of the noise.
        width: Channels before the last layer.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Raises:
        ValueError: If ``image_size`` is not ``base_size`` times a power of 2.
    """

    def __init__(
        self,
        image_size: int = 32,
        base_size: int = 4,
        channels: int = 3,
        noise_size: int = 128,
        width: int = 64,
        num_classes: int | None = None,
    ) -> None:
        check_counts(base_size=base_size, channels=channels, width=width)
        super().__init__(noise_size, num_classes)
        self.image_shape = (channels, image_size, image_size)
        widths = [width * 2**level for level in reversed(range(_count_doublings(base_size, image_size)))]
        self.first = nn.Sequential(
            nn.Linear(noise_size, widths[0] * base_size**2, bias=False),
            nn.Unflatten(1, (widths[0], base_size, base_size)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.doubling = nn.Sequential()
        for before, after in zip(widths, widths[1:], strict=False):
            self.doubling.append(nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False))
            self.doubling.append(nn.BatchNorm2d(after))
            self.doubling.append(nn.ReLU(inplace=True))
        self.last = nn.ConvTranspose2d(width, channels, kernel_size=4, stride=2, padding=1)

    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.last(self.doubling(self.first(noise))).tanh()


class DCGANCritic(Critic):
    """DCGAN's critic: convolutions that each halve height and width and double the channels.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2.
        base_size: Height and width of the last feature map.
        channels: Channels of the images.
        width: Channels after the first layer.
        batch_norm: Normalize each layer but the first. Not to be combined with a gradient penalty, which is
            defined for one image at a time.
        spectral_norm: Divide each weight by its largest singular value.
        num_classes: Number of classes; None for an unconditional critic.

    Raises:
        ValueError: If ``image_size`` is not ``base_size`` times a power of 2.
    """

    def __init__(
        self,
        image_size: int = 32,
        base_size: int = 4,
        channels: int = 3,
        width: int = 64,
        batch_norm: bool = False,
        spectral_norm: bool = False,
        num_classes: int | None = None,
    ) -> None:
        check_counts(base_size=base_size, channels=channels, width=width)
        halvings = _count_doublings(base_size, image_size)
        super().__init__(width * 2 ** (halvings - 1) * base_size**2, num_classes, spectral_norm, bias=False)
        self.image_shape = (channels, image_size, image_size)
        self.layers = nn.Sequential()
        before = channels
        for level in range(halvings):
            after = width * 2**level
            self.layers.append(
                _normalize_if(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), spectral_norm)
            )
            if batch_norm and level > 0:
                self.layers.append(nn.BatchNorm2d(after))
            self.layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = after

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, flattened: (N, features)."""
        return self.layers(images).flatten(1)


class ResNetGenerator(Generator):
    """SN-GAN's generator: residual blocks with batch normalization, each doubling height and width.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2.
        base_size: Height and width of the first feature map.
        channels: Channels of the images.
        noise_size: Length of the noise.
        width: Channels of each block.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Raises:
        ValueError: If ``image_size`` is not ``base_size`` times a power of 2.

    References:
        Miyato et al., 2018 (https://arxiv.org/abs/1802.05957), table 4.
    """

    def __init__(
        self,
        image_size: int = 32,
        base_size: int = 4,
        channels: int = 3,
        noise_size: int = 128,
        width: int = 256,
        num_classes: int | None = None,
    ) -> None:
        check_counts(base_size=base_size, channels=channels, width=width)
        super().__init__(noise_size, num_classes)
        self.image_shape = (channels, image_size, image_size)
        doublings = _count_doublings(base_size, image_size)
        self.first = nn.Sequential(
            nn.Linear(noise_size, width * base_size**2), nn.Unflatten(1, (width, base_size, base_size))
        )
        self.blocks = nn.Sequential(*[_DoublingBlock(width) for _ in range(doublings)])
        self.last = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, channels, kernel_size=3, padding=1)
        )

    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.last(self.blocks(self.first(noise))).tanh()


class ResNetCritic(Critic):
    """SN-GAN's critic: residual blocks without batch normalization, then the sum over height and width.

    Args:
        channels: Channels of the images.
        width: Channels of each block.
        blocks: Number of residual blocks.
        halvings: Number of blocks, the first ones, that halve height and width.
        spectral_norm: Divide each weight by its largest singular value.
        num_classes: Number of classes; None for an unconditional critic.

    References:
        Miyato et al., 2018 (https://arxiv.org/abs/1802.05957), table 4.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        blocks: int = 4,
        halvings: int = 2,
        spectral_norm: bool = True,
        num_classes: int | None = None,
    ) -> None:
        check_counts(channels=channels, width=width, blocks=blocks)
        super().__init__(width, num_classes, spectral_norm, bias=True)
        self.blocks = nn.Sequential(
            *[
                _CriticBlock(width if number else channels, width, number < halvings, spectral_norm, number == 0)
                for number in range(blocks)
            ]
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, summed over height and width: (N, features)."""
        return self.blocks(images).relu().sum(dim=(2, 3))


class _DoublingBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        # No biases: the batch normalization that follows each would subtract them again.
        self.conv1, self.conv2 = (nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False) for _ in range(2))
        self.shortcut = nn.Conv2d(width, width, kernel_size=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv1(interpolate(self.norm1(images).relu(), scale_factor=2))
        hidden = self.conv2(self.norm2(hidden).relu())
        # A 1x1 convolution commutes with enlarging, and costs a quarter before it.
        return hidden + interpolate(self.shortcut(images), scale_factor=2)


class _CriticBlock(nn.Module):
    def __init__(self, before: int, after: int, halves: bool, spectral_norm: bool, is_first: bool) -> None:
        super().__init__()
        self.halves = halves
        self.is_first = is_first
        self.conv1 = _normalize_if(nn.Conv2d(before, after, kernel_size=3, padding=1), spectral_norm)
        self.conv2 = _normalize_if(nn.Conv2d(after, after, kernel_size=3, padding=1), spectral_norm)
        changes_shape = halves or before != after
        self.shortcut = (
            _normalize_if(nn.Conv2d(before, after, kernel_size=1), spectral_norm) if changes_shape else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = images if self.is_first else images.relu()  # a ReLU would cut off the dark half of an image
        hidden = self.conv2(self.conv1(hidden).relu())
        if self.halves:
            return avg_pool2d(hidden, 2) + self.shortcut(avg_pool2d(images, 2))
        return hidden + self.shortcut(images)


def _count_doublings(base_size: int, image_size: int) -> int:
    """Return how often ``base_size`` is doubled to give ``image_size``."""
    sizes = [base_size * 2**doublings for doublings in range(1, 12)]
    if image_size not in sizes:
        raise ValueError(f"Invalid image_size: {image_size}. With a base_size of {base_size} give one of {sizes}")
    return 1 + sizes.index(image_size)


def _normalize_if(layer: nn.Module, spectral_norm: bool) -> nn.Module:
    return normalize_spectrally(layer) if spectral_norm else layer
