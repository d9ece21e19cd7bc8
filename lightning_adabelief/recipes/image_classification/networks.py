"""Networks whose numbers of channels and classes may come from the data."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torchvision
from torch import Tensor, nn
from torchvision.models import VGG, DenseNet, ResNet

from lightning_adabelief.recipes.checks import check_counts, check_probability
from lightning_adabelief.suggest import suggest


class NetworkFromData(nn.Module, ABC):
    """A network whose layers are made once its numbers of channels and classes are known.

    That is in the constructor if both are given; otherwise ``ImageClassifier`` calls :meth:`complete` with
    the numbers of the data, before it makes the optimizer. A subclass implements :meth:`make`, and calls
    :meth:`complete` at the end of its constructor.

    Args:
        in_channels: Channels of the images; None for the data's.
        num_classes: Number of classes; None for the data's.

    Attributes:
        is_complete: True once the layers are made.
    """

    def __init__(self, in_channels: int | None, num_classes: int | None) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.is_complete = False

    @abstractmethod
    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the layers for images of ``in_channels`` channels and ``num_classes`` classes."""

    def complete(self, in_channels: int | None = None, num_classes: int | None = None) -> None:
        """Make the layers if both numbers are known now; does nothing if they are made already.

        Args:
            in_channels: Channels of the data, used if the constructor was given none.
            num_classes: Number of classes of the data, used if the constructor was given none.
        """
        self.in_channels = self.in_channels or in_channels
        self.num_classes = self.num_classes or num_classes
        if not self.is_complete and self.in_channels and self.num_classes:
            self.make(self.in_channels, self.num_classes)
            self.is_complete = True


class SmallCNN(NetworkFromData):
    """A convolutional network for small images: three blocks, then the mean over height and width.

    Args:
        in_channels: Channels of the images: 1 for grayscale, 3 for RGB; None for the data's.
        num_classes: Number of classes; None for the data's.
        width: Channels of the first block; the second and third have twice as many.
        dropout: Probability, in [0, 1], with which a feature is set to 0 in training.

    Shape:
        Images (N, in_channels, H, W), H and W at least 2, to logits (N, num_classes).
    """

    def __init__(
        self, in_channels: int | None = None, num_classes: int | None = None, width: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__(in_channels, num_classes)
        check_counts(width=width)
        check_probability("dropout", dropout)
        self.width = width
        self.dropout = nn.Dropout(dropout)
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the three blocks and the classifier."""
        width = self.width
        self.block1 = _make_block(in_channels, width)
        self.block2 = _make_block(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.block3 = _make_block(2 * width, 2 * width)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, in_channels, H, W) into logits (N, num_classes)."""
        features = self.block3(self.pool(self.block2(self.block1(images))))
        return self.classifier(self.dropout(self.mean(features).flatten(1)))


class TorchvisionNetwork(NetworkFromData):
    """A classifier of torchvision, with random weights, for any numbers of channels and classes.

    Args:
        name: torchvision's name of it: ``resnet34``, ``densenet121``, ``vgg11``, ``mobilenet_v3_small``, ...
        small_images: Adapt the network to images of 32x32, like the paper's for CIFAR: a ResNet or DenseNet
            begins with a 3x3 convolution of stride 1 and no pooling; a VGG ends in a classifier of 512
            features.
        in_channels: Channels of the images; None for the data's.
        num_classes: Number of classes; None for the data's.

    Raises:
        ValueError: If torchvision has no classifier of this name, or it can't be adapted to small images.

    Shape:
        Images (N, in_channels, H, W) to logits (N, num_classes).
    """

    body: nn.Module

    def __init__(
        self, name: str, small_images: bool = False, in_channels: int | None = None, num_classes: int | None = None
    ) -> None:
        super().__init__(in_channels, num_classes)
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise ValueError(f"Unknown network of torchvision: {name!r}. {suggest(name, names)}")
        if small_images and not name.startswith(("resnet", "densenet", "vgg")):
            raise ValueError(
                f"{name} with small_images: only resnet*, densenet* and vgg* can be adapted to them. Give one of "
                "these, or small_images false"
            )
        self.name = name
        self.small_images = small_images
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make torchvision's network, and replace the layers that don't fit the images."""
        body = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes)
        if self.small_images:
            _adapt_to_small_images(body, num_classes)
        if in_channels != 3:
            replace_first_convolution(body, in_channels)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, in_channels, H, W) into logits (N, num_classes)."""
        return self.body(images)


def _adapt_to_small_images(network: nn.Module, num_classes: int) -> None:
    """Remove the early reductions of the resolution: so the paper's networks for CIFAR are made."""
    if isinstance(network, ResNet):
        network.conv1 = _make_stem(network.conv1)
        network.maxpool = nn.Identity()
    elif isinstance(network, DenseNet):
        network.features.conv0 = _make_stem(network.features.conv0)
        for early in ("norm0", "relu0", "pool0"):
            delattr(network.features, early)
    else:
        assert isinstance(network, VGG)
        network.avgpool = nn.Identity()
        network.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, num_classes),
        )


def _make_stem(stem: nn.Module) -> nn.Conv2d:
    """Make a 3x3 convolution of stride 1 for a network's first, with the initialization of torchvision's ResNet."""
    assert isinstance(stem, nn.Conv2d)
    convolution = nn.Conv2d(stem.in_channels, stem.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Make the first convolution anew, for images of other than 3 channels."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    convolution = nn.Conv2d(
        in_channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, convolution)


def _make_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
