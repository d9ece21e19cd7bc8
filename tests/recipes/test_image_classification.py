"""The digits, and the module that takes any network."""

import pytest
import pytorch_lightning as pl
import torch
import torchvision

from lightning_adabelief import AdaBelief
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN


@pytest.fixture(scope="module")
def digits():
    data = DigitsDataModule()
    data.setup("fit")
    return data


def test_the_digits_are_split_once_and_for_all(digits):
    sets = (digits.train_set, digits.val_set, digits.test_set)
    assert [len(s) for s in sets] == [1077, 360, 360]
    indices = [set(s.indices) for s in sets]
    assert len(set.union(*indices)) == 1797
    again = DigitsDataModule()
    again.setup("test")
    assert again.test_set.indices == digits.test_set.indices


def test_the_split_is_stratified(digits):
    for part in (digits.train_set, digits.val_set, digits.test_set):
        counts = torch.bincount(torch.tensor([int(label) for _, label in part]), minlength=10)
        shares = counts / len(part)
        assert (shares - 0.1).abs().max() < 0.005


def test_images_are_float32_in_0_to_1_and_labels_int64(digits):
    images, labels = next(iter(digits.train_dataloader()))
    assert images.shape == (64, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.shape == (64,) and labels.dtype == torch.int64


def test_a_batch_size_of_zero_is_an_error():
    with pytest.raises(ValueError, match="batch_size: 0"):
        DigitsDataModule(batch_size=0)


@pytest.mark.parametrize("size", [8, 28, 33])
def test_the_small_cnn_takes_images_of_any_size(size):
    assert SmallCNN(in_channels=3, num_classes=7)(torch.rand(2, 3, size, size)).shape == (2, 7)


def fit(module, tmp_path, data=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **{"max_epochs": 1, "enable_checkpointing": False} | options,
    )
    trainer.fit(module, data or DigitsDataModule())
    return trainer


def test_scores_are_over_all_images_whatever_the_batches(tmp_path):
    """The last batch is smaller: a mean of batches' means would be off."""
    module = ImageClassifier(SmallCNN())
    trainer = fit(module, tmp_path)
    data = DigitsDataModule(batch_size=50)
    (scores,) = trainer.test(module, data, verbose=False)
    images, labels = map(torch.stack, zip(*[(x, y) for x, y in data.test_set], strict=True))
    module.eval()
    with torch.no_grad():
        logits = module(images)
    assert scores["test/accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert scores["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_another_network_trains(tmp_path):
    class Rgb(DigitsDataModule):
        in_channels = 3

        def setup(self, stage):
            super().setup(stage)
            images, labels = self.train_set.dataset.tensors
            self.train_set.dataset.tensors = (images.expand(-1, 3, -1, -1), labels)

    network = torchvision.models.mobilenet_v3_small(num_classes=10)
    trainer = fit(ImageClassifier(network), tmp_path, Rgb(), limit_train_batches=2, limit_val_batches=1)
    assert trainer.global_step == 2


def test_any_optimizer_and_schedule_can_be_given(tmp_path):
    module = ImageClassifier(
        SmallCNN(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5),
        lr_scheduler_interval="step",
    )
    trainer = fit(module, tmp_path, limit_train_batches=3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_a_plateau_schedule_watches_the_validation_loss(tmp_path):
    module = ImageClassifier(
        SmallCNN(), lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    )
    trainer = fit(module, tmp_path, limit_train_batches=2)
    assert trainer.lr_scheduler_configs[0].monitor == "val/loss"


def test_it_trains_with_adabelief_by_default_on_named_parameters(tmp_path):
    trainer = fit(ImageClassifier(SmallCNN()), tmp_path, limit_train_batches=1)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, AdaBelief)
    assert optimizer.param_groups[0]["param_names"][0] == "network.block1.0.weight"


def test_predictions_are_probabilities_with_and_without_labels():
    module = ImageClassifier(SmallCNN(1, 10)).eval()
    images, labels = torch.rand(4, 1, 8, 8), torch.zeros(4).long()
    with torch.no_grad():
        probabilities = module.predict_step((images, labels), 0)
        assert torch.equal(probabilities, module.predict_step(images, 0))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))


def test_a_checkpoint_loads_with_the_network_given(tmp_path):
    module = ImageClassifier(SmallCNN())
    trainer = fit(module, tmp_path, limit_train_batches=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=SmallCNN())
    assert torch.equal(loaded.network.classifier.weight, module.network.classifier.weight)
