"""Faster R-CNN, small and on a ResNet50."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.image_classification import NetworkFromData
from lightning_adabelief.recipes.object_detection.detection_data import Target

DOWNLOAD = "download"
"""The value of ``weights`` that stands for the library's own download."""

IMAGENET = ResNet50_Weights.IMAGENET1K_V1

Losses = dict[str, Tensor]
Detections = dict[str, Tensor]
"""Of an image, best first: ``boxes`` (N, 4), left, top, right and bottom in pixels, their ``labels`` and ``scores``."""


class Detector(NetworkFromData):
    """A network of torchvision's that detects objects, made once the number of classes is known.

    Args:
        num_classes: Number of classes, without the background; None for the data's.

    Shape:
        A list of images (3, H, W) in [0, 1]; in training with a list of targets, to losses by name,
        otherwise to a list of :data:`Detections`.
    """

    detector: FasterRCNN

    def __init__(self, num_classes: int | None = None) -> None:
        check_counts(num_classes=num_classes)
        super().__init__(3, num_classes)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Losses | list[Detections]:
        """Return the losses in training, and what is detected in each image otherwise."""
        return self.detector(images, targets)

    def load_pretrained(self) -> None:
        """Load the weights that training begins with; random ones unless a subclass has others."""


class SmallFasterRCNN(Detector):
    """Faster R-CNN for small images: six convolutions, stride 4, and few proposals.

    Args:
        width: Channels of the features; the first two convolutions have half as many.
        image_size: Height and width that images are resized to, in pixels.
        anchor_sizes: Square roots of the anchors' areas, in pixels.
        num_classes: Number of classes, without the background; None for the data's.

    Raises:
        ValueError: If a size, ``width`` or ``num_classes`` is less than 1.
    """

    ASPECT_RATIOS = (1.0, 1.5)
    """Height by width of the anchors: digits are higher than wide."""

    POOLED_SIZE = 5
    HIDDEN_SIZE = 128

    def __init__(
        self,
        width: int = 64,
        image_size: int = 96,
        anchor_sizes: tuple[int, ...] = (12, 18, 28),
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        check_counts(
            width=width, image_size=image_size, **{f"anchor_sizes[{i}]": size for i, size in enumerate(anchor_sizes)}
        )
        self.width = width
        self.image_size = image_size
        self.anchor_sizes = anchor_sizes
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the backbone, the proposals' network and the head."""
        width, hidden = self.width, self.HIDDEN_SIZE
        backbone = nn.Sequential(
            _make_block(in_channels, width // 2, stride=2),
            _make_block(width // 2, width // 2),
            _make_block(width // 2, width, stride=2),
            *(_make_block(width, width) for _ in range(3)),
        )
        backbone.out_channels = width  # type: ignore[assignment]
        features = width * self.POOLED_SIZE**2
        self.detector = FasterRCNN(
            backbone,
            num_classes=None,  # the predictor has their number
            min_size=self.image_size,
            max_size=self.image_size,
            image_mean=[0.5] * in_channels,
            image_std=[0.25] * in_channels,
            rpn_anchor_generator=AnchorGenerator((self.anchor_sizes,), (self.ASPECT_RATIOS,)),
            rpn_pre_nms_top_n_train=200,
            rpn_pre_nms_top_n_test=200,
            rpn_post_nms_top_n_train=60,
            rpn_post_nms_top_n_test=60,
            rpn_batch_size_per_image=64,
            box_roi_pool=MultiScaleRoIAlign(["0"], output_size=self.POOLED_SIZE, sampling_ratio=2),
            box_head=nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(inplace=True)),
            box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
            box_batch_size_per_image=32,
            box_detections_per_img=20,
        )


class ResNet50FasterRCNN(Detector):
    """torchvision's Faster R-CNN with a feature pyramid on a ResNet50, as the paper has it for PASCAL VOC.

    Args:
        weights: What the ResNet50 begins with: ``"download"`` for ImageNet's weights as torchvision downloads
            them, the path of a file with a ResNet50's state dict, or None for random weights.
        trainable_layers: Number of the ResNet50's layers, from 0 to 5 counted from the last, that are trained;
            the first ones are frozen. None for 3, or for all 5 with random weights.
        min_size: Pixels that the shorter side of an image is resized to, unless the longer gets too long.
        max_size: Pixels that the longer side has at most.
        num_classes: Number of classes, without the background; None for the data's.

    Raises:
        ValueError: If ``trainable_layers`` is out of its range, random weights would be frozen, or a size or
            ``num_classes`` is less than 1.
    """

    LAYERS = 5

    def __init__(
        self,
        weights: str | None = DOWNLOAD,
        trainable_layers: int | None = None,
        min_size: int = 600,
        max_size: int = 1000,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        check_counts(min_size=min_size, max_size=max_size)
        if trainable_layers is None:
            trainable_layers = self.LAYERS if weights is None else 3
        if not 0 <= trainable_layers <= self.LAYERS:
            raise ValueError(f"Invalid trainable_layers: {trainable_layers}. Give 0 to {self.LAYERS}, or null")
        if weights is None and trainable_layers < self.LAYERS:
            raise ValueError(
                f"Without weights, trainable_layers {trainable_layers} would freeze random layers. Give weights, or "
                "trainable_layers null to train all"
            )
        self.weights = weights
        self.trainable_layers = trainable_layers
        self.min_size = min_size
        self.max_size = max_size
        self.complete()

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the network with random weights."""
        norm_layer = nn.BatchNorm2d if self.weights is None else FrozenBatchNorm2d  # batches of 2 are too few for it
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=norm_layer, trainable_layers=self.trainable_layers
        )
        self.detector = FasterRCNN(backbone, num_classes + 1, min_size=self.min_size, max_size=self.max_size)

    def load_pretrained(self) -> None:
        """Load the ResNet50's weights.

        Raises:
            FileNotFoundError: If there is no such file, or the weights can't be downloaded.
            ValueError: If the file is not a ResNet50's state dict.
        """
        if self.weights is None:
            return
        state = _download_weights() if self.weights == DOWNLOAD else _read_weights(Path(self.weights))
        body = self.detector.backbone.body  # type: ignore[union-attr]
        try:
            unused = body.load_state_dict(state, strict=False)  # type: ignore[operator]
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"{self.weights} is not a ResNet50's state dict: {error}") from error
        if unused.missing_keys:
            raise ValueError(
                f"{self.weights} is not a ResNet50's state dict: it has no {unused.missing_keys[0]}. Give a file "
                f"like {IMAGENET.url}"
            )


def _download_weights() -> dict[str, Any]:
    try:
        return dict(IMAGENET.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"ImageNet's weights of ResNet50 could not be downloaded ({error}). Download {IMAGENET.url} (98 MB) "
            "elsewhere and give --model.network.weights its path; null begins with random weights"
        ) from error


def _read_weights(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give weights a file, {DOWNLOAD!r}, or null")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's and zip's errors have no common base
        raise ValueError(f"{path} is not a ResNet50's state dict: torch.load can't read it") from error


def _make_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
