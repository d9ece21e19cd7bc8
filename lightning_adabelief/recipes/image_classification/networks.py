"""Networks whose channels and classes the data may tell."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod

import torchvision
from torch import Tensor, nn
from torchvision.models import VGG, DenseNet, ResNet


class NetworkFromData(nn.Module, ABC):
    """A network that is made once its channels and classes are known: at once, or from the data.

    ``ImageClassifier`` calls :meth:`complete` with what the data tell, before the optimizer is made.

    Args:
        in_channels: Channels of the images; None for those of the data.
        num_classes: Number of classes; None for that of the data.
    """

    def __init__(self, in_channels: int | None, num_classes: int | None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.is_complete = False

    @abstractmethod
    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the layers."""

    def complete(self, in_channels: int | None = None, num_classes: int | None = None) -> None:
        """Make the layers if all is known now; what the network was given itself comes first."""
        self.in_channels = self.in_channels or in_channels
        self.num_classes = self.num_classes or num_classes
        if not self.is_complete and self.in_channels and self.num_classes:
            self.make(self.in_channels, self.num_classes)
            self.is_complete = True


class SmallCNN(NetworkFromData):
    """A small convolutional network for small images: three blocks, then the mean over the image.

    Args:
        in_channels: Channels of the images: 1 for grayscale, 3 for RGB; None for those of the data.
        num_classes: Number of classes; None for that of the data.
        width: Channels of the first block; the second and third have twice as many.
        dropout: Share of the features set to 0 in training.

    Shape:
        Images (N, in_channels, H, W), H and W at least 2, to logits (N, num_classes).
    """

    def __init__(
        self, in_channels: int | None = None, num_classes: int | None = None, width: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__(in_channels, num_classes)
        self.width = width
        self.dropout_share = dropout
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the three blocks and the classifier."""
        width = self.width
        self.block1 = _block(in_channels, width)
        self.block2 = _block(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.block3 = _block(2 * width, 2 * width)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(self.dropout_share)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into logits."""
        features = self.block3(self.pool(self.block2(self.block1(images))))
        return self.classifier(self.dropout(self.mean(features).flatten(1)))


class TorchvisionNetwork(NetworkFromData):
    """A classifier of torchvision, with random weights and the data's own channels and classes.

    Args:
        name: torchvision's: ``resnet34``, ``densenet121``, ``vgg11``, ``mobilenet_v3_small``, ...
        small_images: Keep the resolution of images of 32x32, as the paper's networks for CIFAR do: a ResNet or
            DenseNet begins with a 3x3 convolution of stride 1 and no pooling; a VGG ends in a classifier of
            512 features.
        in_channels: Channels of the images; None for those of the data.
        num_classes: Number of classes; None for that of the data.

    Raises:
        ValueError: If torchvision has no such classifier, or none for small images.

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
            near = difflib.get_close_matches(name, names, n=3) or ["resnet18", "densenet121", "vgg11"]
            raise ValueError(f"Unknown network: {name!r}. torchvision has {', '.join(near)} and others")
        if small_images and not name.startswith(("resnet", "densenet", "vgg")):
            raise ValueError(f"{name} with small_images: only resnet*, densenet* and vgg* can be adapted to them")
        self.name = name
        self.small_images = small_images
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make torchvision's network, and adapt its first and, for a VGG, its last layers."""
        body = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes)
        if self.small_images:
            _adapt_to_small_images(body, num_classes)
        if in_channels != 3:
            _take_channels(body, in_channels)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into logits."""
        return self.body(images)


def _adapt_to_small_images(network: nn.Module, num_classes: int) -> None:
    """Leave out what reduces the resolution early; the paper's networks for CIFAR are these."""
    if isinstance(network, ResNet):
        network.conv1 = _stem(network.conv1)
        network.maxpool = nn.Identity()
    elif isinstance(network, DenseNet):
        network.features.conv0 = _stem(network.features.conv0)
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


def _stem(stem: nn.Module) -> nn.Conv2d:
    assert isinstance(stem, nn.Conv2d)
    convolution = nn.Conv2d(stem.in_channels, stem.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNet
    return convolution


def _take_channels(network: nn.Module, in_channels: int) -> None:
    """Let the first convolution take images of other than 3 channels."""
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


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
