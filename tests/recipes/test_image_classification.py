"""The digits, and the module that takes any network."""

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adabelief import AdaBelief
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN
from lightning_adabelief.recipes.image_classification.confusion import draw_confusion
from lightning_adabelief.recipes.image_classification.metrics import make_metrics


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
        **{"logger": False, "max_epochs": 1, "enable_checkpointing": False} | options,
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


def fit_with(tmp_path, callbacks=(), **options):
    """One short epoch with some of the module's options: the module."""
    module = ImageClassifier(SmallCNN(width=4), **options)
    fit(module, tmp_path, limit_train_batches=2, limit_val_batches=1, callbacks=list(callbacks))
    return module


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0},
        {"channels_last": True},
    ],
    ids=repr,
)
def test_each_option_of_training_trains(options, tmp_path):
    plain, module = fit_with(tmp_path / "a"), fit_with(tmp_path / "b", **options)
    assert torch.isfinite(module.trainer.callback_metrics["train/loss"])
    assert "train/accuracy" in plain.trainer.callback_metrics.keys() & module.trainer.callback_metrics.keys()


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"mixup": -1.0}, {"cutmix": -0.5}], ids=repr
)
def test_impossible_options_are_named(options):
    with pytest.raises(ValueError, match="Invalid {}: {}".format(*next(iter(options.items())))):
        ImageClassifier(SmallCNN(), **options)


def test_smoothing_and_mixing_are_of_the_training_only():
    """The loss by which runs are compared stays the cross-entropy."""
    batch = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    losses = []
    for options in ({}, {"label_smoothing": 0.3, "mixup": 1.0, "cutmix": 1.0}):
        torch.manual_seed(0)
        module = ImageClassifier(SmallCNN(1, 10), **options)
        module.configure_model()
        module.log = lambda *_, **__: None
        module.eval()
        module.validation_step(batch, 0)
        losses.append((module.val_metrics["loss"].compute(), module.training_step(batch, 0)))
    assert losses[0][0] == losses[1][0] == losses[0][1]
    assert losses[1][1] != losses[0][1]


def test_channels_last_is_the_layout_of_weights_and_images(tmp_path):
    module = fit_with(tmp_path, channels_last=True)
    assert module.network.block2[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_network_has_the_plain_ones_checkpoint(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(SmallCNN, "compile", lambda self: compiled.append(self))
    module = fit_with(tmp_path, compile=True)
    assert compiled == [module.network]
    assert module.state_dict().keys() == fit_with(tmp_path).state_dict().keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_learns_the_same(tmp_path):
    def loss(**options):
        pl.seed_everything(0, verbose=False)
        return fit_with(tmp_path, **options).trainer.callback_metrics["val/loss"]

    torch.testing.assert_close(loss(compile=True), loss(), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
def test_an_average_of_the_weights_can_be_kept(tmp_path):
    callbacks = pytest.importorskip("pytorch_lightning.callbacks.weight_averaging", reason="new in Lightning 2.6")
    average = callbacks.EMAWeightAveraging(decay=0.9)
    module = fit_with(tmp_path, callbacks=[average])
    assert module.trainer.global_step == 2
    assert torch.equal(average._average_model.module.network.classifier.weight, module.network.classifier.weight)


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


def test_the_confusion_matrix_is_in_tensorboard_ever_more_seldom(tmp_path):
    module = ImageClassifier(SmallCNN(width=4))
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = fit(module, tmp_path, logger=logger, max_epochs=5, limit_train_batches=1, limit_val_batches=1)
    trainer.test(module, DigitsDataModule(), verbose=False)
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Images("val/confusion_matrix")] == [1, 2, 4]
    assert len(events.Images("test/confusion_matrix")) == 1


def test_a_confusion_matrix_has_the_classes_names_and_shares_in_it():
    figure = draw_confusion(torch.tensor([[3, 1], [0, 7]]), ["cat", "dog"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    shares = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert shares == {((0, 0), "0.75"), ((1, 0), "0.25"), ((1, 1), "1.00")}, "across: predicted; down: true"
    assert not draw_confusion(torch.eye(100)).axes[0].texts


def test_more_than_100_classes_have_no_confusion_matrix():
    module = ImageClassifier(SmallCNN(1, 101))
    module.configure_model()
    assert module.confusion is None
