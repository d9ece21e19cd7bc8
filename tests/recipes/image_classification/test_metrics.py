"""The metrics, by hand."""

import pytest
import torch

from lightning_adabelief.recipes.image_classification.metrics import make_metrics


def test_top_5_and_calibration_are_what_they_are_by_hand():
    torch.manual_seed(0)
    probabilities, labels = (3 * torch.randn(200, 10)).softmax(1), torch.randint(10, (200,))
    metrics = make_metrics(10, "test")
    for half in (slice(0, 50), slice(50, 200)):
        metrics.update(preds=probabilities[half], target=labels[half], value=torch.tensor(1.0), weight=1)
    scores = metrics.compute()
    in_top_5 = (probabilities.topk(5).indices == labels[:, None]).any(1).float().mean()
    assert scores["test/accuracy_top5"] == pytest.approx(in_top_5.item())
    confidence, choice = probabilities.max(1)
    error = 0.0
    for low in torch.arange(15) / 15:
        of_bin = (confidence > low) & (confidence <= low + 1 / 15)
        if of_bin.any():
            right = (choice == labels)[of_bin].float().mean()
            error += of_bin.float().mean() * (right - confidence[of_bin].mean()).abs()
    assert scores["test/calibration_error"] == pytest.approx(error.item(), abs=1e-5)


def test_up_to_five_classes_have_no_top_5():
    assert "val/accuracy_top5" not in make_metrics(5, "val").keys(keep_base=False)
    assert "train/calibration_error" not in make_metrics(10, "train").keys(keep_base=False)
