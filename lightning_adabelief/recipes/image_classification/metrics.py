"""What is measured of a classifier."""

from __future__ import annotations

from typing import Any

from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError


def make_metrics(num_classes: int, stage: str) -> MetricCollection:
    """Make a stage's metrics, to be updated with ``preds`` (probabilities), ``target``, ``value`` and ``weight``.

    They are ``<stage>/accuracy`` and ``<stage>/loss``; other than in training ``<stage>/calibration_error``
    too, by how much the probability of the chosen class is off the share of right choices (the mean
    over 15 bins), and with more than 5 classes ``<stage>/accuracy_top5``.

    Args:
        num_classes: Number of classes.
        stage: ``"train"``, ``"val"`` or ``"test"``.
    """
    unchecked: dict[str, Any] = {
        "num_classes": num_classes,
        "validate_args": False,
    }  # a check would wait for the device
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(average="micro", **unchecked),
        "loss": MeanMetric(),
    }
    if stage != "train" and num_classes > 5:
        metrics["accuracy_top5"] = MulticlassAccuracy(average="micro", top_k=5, **unchecked)
    if stage != "train":
        metrics["calibration_error"] = MulticlassCalibrationError(n_bins=15, **unchecked)
    return MetricCollection(metrics, prefix=f"{stage}/", compute_groups=False)
