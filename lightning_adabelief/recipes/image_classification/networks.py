"""Networks that torchvision does not have."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """A small convolutional network for small images: three blocks, then the mean over the image.

    Args:
        in_channels: Channels of the images: 1 for grayscale, 3 for RGB.
        num_classes: Number of classes.
        width: Channels of the first block; the second and third have twice as many.
        dropout: Share of the features set to 0 in training.

    Shape:
        Images (N, in_channels, H, W), H and W at least 2, to logits (N, num_classes).
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.block1 = _block(in_channels, width)
        self.block2 = _block(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.block3 = _block(2 * width, 2 * width)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into logits."""
        features = self.block3(self.pool(self.block2(self.block1(images))))
        return self.classifier(self.dropout(self.mean(features).flatten(1)))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
