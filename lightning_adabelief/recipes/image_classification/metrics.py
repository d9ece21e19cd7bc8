"""The metrics of a classifier."""

from __future__ import annotations

from typing import Any

from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from lightning_adabelief.recipes.image_classification.macro_metrics import make_macro_metrics

TOP_K = 5


def make_metrics(num_classes: int, stage: str, macro: bool = False) -> MetricCollection:
    """Make the metrics of a stage, named ``<stage>/<metric>``.

    They are ``accuracy`` (top-1) and ``loss`` and, except in training, ``calibration_error``: the expected
    difference between the probability of the predicted class and the accuracy at that probability, over
    15 bins. With more than 5 classes there is ``accuracy_top5`` as well, except in training.

    Args:
        num_classes: Number of classes.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        macro: Add :func:`~lightning_adabelief.recipes.image_classification.macro_metrics.make_macro_metrics`, except
            in training.

    Returns:
        The metrics, to be updated with ``preds`` (probabilities (N, num_classes)), ``target`` (labels
        (N,)), ``value`` (the batch's mean loss) and ``weight`` (its number of images).
    """
    unchecked: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}  # checks wait for the device
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(average="micro", **unchecked),
        "loss": MeanMetric(),
    }
    if stage != "train" and num_classes > TOP_K:
        metrics["accuracy_top5"] = MulticlassAccuracy(average="micro", top_k=TOP_K, **unchecked)
    if stage != "train":
        metrics["calibration_error"] = MulticlassCalibrationError(n_bins=15, **unchecked)
        if macro:
            metrics |= make_macro_metrics(num_classes)
    return MetricCollection(metrics, prefix=f"{stage}/", compute_groups=False)
