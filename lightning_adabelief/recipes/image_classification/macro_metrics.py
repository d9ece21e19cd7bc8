"""Metrics in which each class counts the same, however many images it has.

Accuracy and AUROC are over the classes that have images: one without, as there may be in a small validation set,
counts for nothing. In F1, as scikit-learn has it, such a class counts as 0 if it is predicted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

NO_INFORMATION = 0.5
"""The AUROC of scores that say nothing of the classes."""


def make_macro_metrics(num_classes: int) -> dict[str, Metric]:
    """Make ``accuracy_macro``, ``f1_macro`` and ``auroc_macro``.

    Args:
        num_classes: Number of classes.

    Returns:
        Metrics that are updated with ``preds`` (probabilities (N, num_classes)) and ``target`` (labels (N,)).
    """
    unchecked: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}  # checks wait for the device
    return {
        "accuracy_macro": MacroAccuracy(**unchecked),
        "f1_macro": MulticlassF1Score(average="macro", **unchecked),
        "auroc_macro": MacroAUROC(**unchecked),
    }


class MacroAccuracy(MulticlassConfusionMatrix):
    """The mean of the classes' accuracies, also called balanced accuracy.

    torchmetrics' own counts a class that has no images as 0 once it is predicted.
    """

    def compute(self) -> Tensor:
        """Return a scalar."""
        counts = super().compute()
        images = counts.sum(dim=1)
        return (counts.diagonal()[images > 0] / images[images > 0]).mean()


class MacroAUROC(MulticlassAUROC):
    """The mean of the areas under the classes' ROC curves, each against all others.

    torchmetrics' own warns of a class that has no images, and counts it as 0.
    """

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics says that of a curve
        """Return a scalar: 0.5 where all images are of one class."""
        probabilities, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        counts = labels.bincount()
        present = ((counts > 0) & (counts < len(labels))).nonzero().flatten().tolist()
        areas = [binary_auroc(probabilities[:, label], (labels == label).int()) for label in present]
        return torch.stack(areas).mean() if areas else probabilities.new_tensor(NO_INFORMATION)
