"""The networks of SN-GAN: residual blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.gan.networks import Critic, Generator, choose_base, normalize_if

LEFT_BY_HALVING = 8
"""Height and width of the feature map from which on it is not halved any more."""


class ResNetGenerator(Generator):
    """SN-GAN's generator: residual blocks with batch normalization, each doubling height and width.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2; None for the data's.
        base_size: Height and width of the first feature map; None for 4, or 5, 6 or 7 if the image size needs it.
        channels: Channels of the images.
        noise_size: Length of the noise.
        width: Channels of each block.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Raises:
        ValueError: If ``image_size``, given or the data's, is not ``base_size`` times a power of 2.

    References:
        Miyato et al., 2018 (https://arxiv.org/abs/1802.05957), table 4.
    """

    def __init__(
        self,
        image_size: int | None = 32,
        base_size: int | None = None,
        channels: int = 3,
        noise_size: int = 128,
        width: int = 256,
        num_classes: int | None = None,
    ) -> None:
        check_counts(base_size=base_size, channels=channels, width=width)
        super().__init__(noise_size, num_classes)
        self.base_size = base_size
        self.channels = channels
        self.width = width
        self.is_complete = False
        if image_size is not None:
            self.complete(image_size)

    def make(self, image_size: int) -> None:
        """Make the layers for images of a height and width in pixels."""
        base_size, doublings = choose_base(self.base_size, image_size)
        width = self.width
        self.image_shape = (self.channels, image_size, image_size)
        self.first = nn.Sequential(
            nn.Linear(self.noise_size, width * base_size**2), nn.Unflatten(1, (width, base_size, base_size))
        )
        self.blocks = nn.Sequential(*[_DoublingBlock(width) for _ in range(doublings)])
        self.last = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, self.channels, kernel_size=3, padding=1)
        )

    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.last(self.blocks(self.first(noise))).tanh()


class ResNetCritic(Critic):
    """SN-GAN's critic: residual blocks without batch normalization, then the sum over height and width.

    Args:
        channels: Channels of the images.
        width: Channels of each block.
        blocks: Number of residual blocks; None for two more than those that halve.
        halvings: Number of blocks, the first ones, that halve height and width; None for as many as leave 8 to 15
            pixels of the data's images.
        spectral_norm: Divide each weight by its largest singular value.
        num_classes: Number of classes; None for an unconditional critic.

    References:
        Miyato et al., 2018 (https://arxiv.org/abs/1802.05957), table 4.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        blocks: int | None = 4,
        halvings: int | None = 2,
        spectral_norm: bool = True,
        num_classes: int | None = None,
    ) -> None:
        check_counts(channels=channels, width=width, blocks=blocks)
        super().__init__(width, num_classes, spectral_norm, bias=True)
        self.channels = channels
        self.width = width
        self.num_blocks = blocks
        self.halvings = halvings
        self.is_complete = False
        if halvings is not None:
            self._make_blocks(halvings)
            self.is_complete = True

    def make(self, image_size: int) -> None:
        """Make the layers for images of a height and width in pixels."""
        self._make_blocks(max(0, image_size.bit_length() - LEFT_BY_HALVING.bit_length()))

    def _make_blocks(self, halvings: int) -> None:
        width = self.width
        self.blocks = nn.Sequential(
            *[
                _CriticBlock(
                    width if number else self.channels, width, number < halvings, self.spectral_norm, number == 0
                )
                for number in range(halvings + 2 if self.num_blocks is None else self.num_blocks)
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
        self.conv1 = normalize_if(nn.Conv2d(before, after, kernel_size=3, padding=1), spectral_norm)
        self.conv2 = normalize_if(nn.Conv2d(after, after, kernel_size=3, padding=1), spectral_norm)
        changes_shape = halves or before != after
        self.shortcut = (
            normalize_if(nn.Conv2d(before, after, kernel_size=1), spectral_norm) if changes_shape else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = images if self.is_first else images.relu()  # a ReLU would cut off the dark half of an image
        hidden = self.conv2(self.conv1(hidden).relu())
        if self.halves:
            return avg_pool2d(hidden, 2) + self.shortcut(avg_pool2d(images, 2))
        return hidden + self.shortcut(images)
