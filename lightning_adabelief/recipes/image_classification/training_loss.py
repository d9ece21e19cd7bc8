"""The loss of a classifier in training: cross-entropy with smoothed, mixed and weighted labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.mixing import make_mixing

ClassWeights = Literal["balanced"] | list[float] | None


class TrainingLoss(nn.Module):
    """The mean cross-entropy of a batch, and the mixing of its images and labels before.

    Args:
        label_smoothing: Fraction of a label, in [0, 1), that is spread over all classes.
        mixup: See :func:`~lightning_adabelief.recipes.image_classification.mixing.make_mixing`.
        cutmix: See there.
        class_weights: Factor of the loss of each class's images; ``"balanced"`` for factors in inverse proportion to
            the classes' numbers of images; None for the same.

    Raises:
        ValueError: If an option is out of its range.
    """

    weights: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_weights: ClassWeights = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"Invalid label_smoothing: {label_smoothing}. Give a fraction in [0, 1), such as 0.1")
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if value < 0:
                raise ValueError(f"Invalid {name}: {value}. Give a positive number, such as 0.2, or 0 for none")
        _check_class_weights(class_weights)
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self.class_weights = class_weights
        self.mixing: v2.Transform | None = None
        self.register_buffer("weights", None, persistent=False)  # a resumed run takes them from its data again

    def prepare(self, num_classes: int) -> None:
        """Make the mixing and the weights of the classes, once their number is known.

        Raises:
            ValueError: If there are weights of another number of classes.
        """
        self.mixing = make_mixing(self.mixup, self.cutmix, num_classes)
        if isinstance(self.class_weights, Sequence) and not isinstance(self.class_weights, str):
            if len(self.class_weights) != num_classes:
                raise ValueError(
                    f"class_weights has {len(self.class_weights)} numbers and there are {num_classes} classes. Give "
                    "one for each class, or balanced"
                )
            self.weights = torch.tensor(self.class_weights, dtype=torch.float32)

    def balance(self, data: Any) -> None:
        """Make the weights of the classes that the numbers of images balance, if they are asked for.

        Args:
            data: The DataModule to train on, whose attribute ``class_counts`` has the number of training images of
                each class; if its attribute ``balanced`` is true, it draws each class equally often, and they count
                the same.

        Raises:
            ValueError: If it has none.
        """
        if self.class_weights != "balanced":
            return
        counts = getattr(data, "class_counts", None)
        if counts is None:
            raise ValueError(
                "class_weights balanced needs the number of images of each class, as the attribute class_counts of the "
                "DataModule. Give it, or a list of weights"
            )
        if getattr(data, "balanced", False):  # each class is drawn equally often: to weigh it too would count it twice
            counts = [1] * len(counts)
        # Their mean over all images is 1, so that the loss has the size that it has without them.
        weights = [sum(counts) / (len(counts) * max(count, 1)) for count in counts]
        self.weights = torch.tensor(weights, dtype=torch.float32)

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the images of a batch, and their labels alike.

        Args:
            images: Images (N, C, H, W).
            labels: Labels (N,).

        Returns:
            Images, and probabilities (N, num_classes); without mixup and cutmix, both as they are.
        """
        return (images, labels) if self.mixing is None else self.mixing(images, labels)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of logits (N, num_classes) and labels (N,) or probabilities like logits."""
        return nn.functional.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.label_smoothing)


def _check_class_weights(weights: Any) -> None:
    if weights is None or weights == "balanced":
        return
    if isinstance(weights, str) or not isinstance(weights, Sequence) or not all(weight > 0 for weight in weights):
        raise ValueError(
            f"Invalid class_weights: {weights!r}. Give balanced, a list of a positive number for each class, or null"
        )
