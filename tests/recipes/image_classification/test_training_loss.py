"""The loss in training."""

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN
from lightning_adabelief.recipes.image_classification.training_loss import TrainingLoss
from tests.recipes.image_classification.random_images import RandomImages


class Counts:
    class_counts = [6, 2, 0]


def test_balanced_weights_are_in_inverse_proportion_to_the_numbers_of_images():
    loss = TrainingLoss(class_weights="balanced")
    loss.balance(Counts())
    torch.testing.assert_close(loss.weights, torch.tensor([8 / 18, 8 / 6, 8 / 3]))
    logits, labels = torch.randn(8, 3), torch.tensor([0] * 6 + [1] * 2)
    torch.testing.assert_close(loss(logits, labels), cross_entropy(logits, labels, loss.weights))
    each = cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(loss(logits, labels), (each[:6].mean() + each[6:].mean()) / 2)


def test_classes_that_are_drawn_equally_often_are_not_balanced_again():
    data = Counts()
    data.balanced = True
    loss = TrainingLoss(class_weights="balanced")
    loss.balance(data)
    assert loss.weights.tolist() == [1.0, 1.0, 1.0]


def test_weights_and_mixed_labels_go_together():
    loss = TrainingLoss(class_weights=[1, 2, 3], mixup=0.5, label_smoothing=0.1)
    loss.prepare(3)
    images, targets = loss.mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    assert targets.shape == (4, 3)
    assert loss(torch.randn(4, 3), targets).isfinite()


@pytest.mark.parametrize("weights", ["even", [1.0, -1.0], [0.0, 1.0], 2.0])
def test_impossible_weights_are_named(weights):
    with pytest.raises(ValueError, match="Invalid class_weights: .* Give balanced, a list of a positive number"):
        TrainingLoss(class_weights=weights)


def test_a_list_of_another_length_than_the_classes_is_an_error():
    with pytest.raises(ValueError, match="class_weights has 2 numbers and there are 10 classes"):
        TrainingLoss(class_weights=[1.0, 2.0]).prepare(10)


def fit(module, data, tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_train_batches=1,
    )
    trainer.fit(module, data)
    return trainer


def test_a_training_takes_them_from_its_data_and_keeps_them_out_of_the_checkpoint(tmp_path):
    module = ImageClassifier(SmallCNN(), class_weights="balanced")
    trainer = fit(module, RandomImages(), tmp_path)
    torch.testing.assert_close(module.training_loss.weights, torch.tensor([8 / 12, 8 / 6, 8 / 6]))
    assert not any("training_loss" in name for name in module.state_dict())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=SmallCNN(), class_weights="balanced")
    fit(loaded, RandomImages(), tmp_path)
    assert loaded.training_loss.weights is not None


def test_data_without_their_numbers_of_images_cant_be_balanced(tmp_path):
    with pytest.raises(ValueError, match="class_weights balanced needs .* class_counts of the DataModule. Give it"):
        fit(ImageClassifier(SmallCNN(), class_weights="balanced"), DigitsDataModule(), tmp_path)
