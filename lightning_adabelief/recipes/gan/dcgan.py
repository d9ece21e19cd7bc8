"""The networks of DCGAN: convolutions that double or halve height and width."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.gan.networks import Critic, Generator, choose_base, normalize_if


class DCGANGenerator(Generator):
    """DCGAN's generator: transposed convolutions with batch normalization.

    Each doubles height and width and halves the channels.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2; None for the data's.
        base_size: Height and width of the first feature map; None for 4, or 5, 6 or 7 if the image size needs it.
        channels: Channels of the images: 1 for grayscale, 3 for RGB.
        noise_size: Length of the noise.
        width: Channels before the last layer.
        num_classes: Number of classes to choose from; None for an unconditional generator.

    Raises:
        ValueError: If ``image_size``, given or the data's, is not ``base_size`` times a power of 2.
    """

    def __init__(
        self,
        image_size: int | None = 32,
        base_size: int | None = None,
        channels: int = 3,
        noise_size: int = 128,
        width: int = 64,
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
        self.image_shape = (self.channels, image_size, image_size)
        widths = [self.width * 2**level for level in reversed(range(doublings))]
        self.first = nn.Sequential(
            nn.Linear(self.noise_size, widths[0] * base_size**2, bias=False),
            nn.Unflatten(1, (widths[0], base_size, base_size)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.doubling = nn.Sequential()
        for before, after in zip(widths, widths[1:], strict=False):
            self.doubling.append(nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False))
            self.doubling.append(nn.BatchNorm2d(after))
            self.doubling.append(nn.ReLU(inplace=True))
        self.last = nn.ConvTranspose2d(self.width, self.channels, kernel_size=4, stride=2, padding=1)

    def draw(self, noise: Tensor) -> Tensor:
        """Turn noise (N, noise_size) into images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.last(self.doubling(self.first(noise))).tanh()


class DCGANCritic(Critic):
    """DCGAN's critic: convolutions that each halve height and width and double the channels.

    Args:
        image_size: Height and width of the images: ``base_size`` times a power of 2, at least 2; None for the data's.
        base_size: Height and width of the last feature map; None for 4, or 5, 6 or 7 if the image size needs it.
        channels: Channels of the images.
        width: Channels after the first layer.
        batch_norm: Normalize each layer but the first. Not to be combined with a gradient penalty, which is
            defined for one image at a time.
        spectral_norm: Divide each weight by its largest singular value.
        num_classes: Number of classes; None for an unconditional critic.

    Raises:
        ValueError: If ``image_size``, given or the data's, is not ``base_size`` times a power of 2.
    """

    def __init__(
        self,
        image_size: int | None = 32,
        base_size: int | None = None,
        channels: int = 3,
        width: int = 64,
        batch_norm: bool = False,
        spectral_norm: bool = False,
        num_classes: int | None = None,
    ) -> None:
        check_counts(base_size=base_size, channels=channels, width=width)
        super().__init__(None, num_classes, spectral_norm, bias=False)
        self.base_size = base_size
        self.channels = channels
        self.width = width
        self.batch_norm = batch_norm
        self.is_complete = False
        if image_size is not None:
            self.complete(image_size)

    def make(self, image_size: int) -> None:
        """Make the layers for images of a height and width in pixels."""
        base_size, halvings = choose_base(self.base_size, image_size)
        self.make_score(self.width * 2 ** (halvings - 1) * base_size**2)
        self.image_shape = (self.channels, image_size, image_size)
        self.layers = nn.Sequential()
        before = self.channels
        for level in range(halvings):
            after = self.width * 2**level
            self.layers.append(
                normalize_if(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), self.spectral_norm)
            )
            if self.batch_norm and level > 0:
                self.layers.append(nn.BatchNorm2d(after))
            self.layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = after

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, flattened: (N, features)."""
        return self.layers(images).flatten(1)
