"""Metrics in which each class counts the same."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from lightning_adabelief.recipes.image_classification.macro_metrics import make_macro_metrics
from lightning_adabelief.recipes.image_classification.metrics import make_metrics


def compute(probabilities, labels):
    """Each metric, of images that come in two batches."""
    values = {}
    for name, metric in make_macro_metrics(probabilities.shape[1]).items():
        for part in (slice(None, 3), slice(3, None)):
            metric.update(probabilities[part], labels[part])
        values[name] = metric.compute().item()
    return values


def test_they_are_scikit_learns():
    probabilities, labels = torch.rand(50, 4).softmax(1), torch.randint(0, 4, (50,))
    predictions = probabilities.argmax(1)
    assert compute(probabilities, labels) == pytest.approx(
        {
            "accuracy_macro": balanced_accuracy_score(labels, predictions),
            "f1_macro": f1_score(labels, predictions, average="macro"),
            "auroc_macro": roc_auc_score(labels, probabilities, multi_class="ovr"),
        },
        abs=1e-5,
    )


def test_a_class_without_images_counts_for_nothing_even_if_it_is_predicted():
    """pytest.ini makes torchmetrics' warnings of such a class errors."""
    labels = torch.tensor([0, 0, 1, 1])
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    values = compute(probabilities, labels)
    assert values["accuracy_macro"] == pytest.approx((1 / 2 + 1) / 2)
    of_two = [roc_auc_score(labels == label, probabilities[:, label]) for label in (0, 1)]
    assert values["auroc_macro"] == pytest.approx(sum(of_two) / 2)


def test_images_of_one_class_alone_give_no_nan():
    values = compute(torch.tensor([[0.9, 0.1]] * 4), torch.zeros(4).long())
    assert values == {"accuracy_macro": 1, "f1_macro": 1, "auroc_macro": 0.5}


def test_they_are_of_validation_and_test_and_only_if_asked_for():
    assert "accuracy_macro" not in make_metrics(3, "train", macro=True)
    assert "val/accuracy_macro" in make_metrics(3, "val", macro=True).keys()
    assert "val/accuracy_macro" not in make_metrics(3, "val").keys()
