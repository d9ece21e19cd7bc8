"""The module that classifies images with any network and optimizer."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import TensorDataset

from lightning_adabelief import AdaBelief, ConfiguredAdaBelief
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN
from tests.recipes.image_classification.random_images import RandomImages


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


def test_configured_adabelief_brings_its_schedule_and_a_second_one_is_an_error(tmp_path):
    options = {"optimizer": partial(ConfiguredAdaBelief, lr=1e-3, warmup=0, schedule="cosine")}
    trainer = fit(ImageClassifier(SmallCNN(), **options), tmp_path, max_steps=2, max_epochs=-1)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    options["lr_scheduler"] = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ValueError, match="has a schedule, and lr_scheduler is given too"):
        fit(ImageClassifier(SmallCNN(), **options), tmp_path)


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


class Bytes(RandomImages):
    """Images of uint8, as those of files are."""

    def setup(self, stage):
        super().setup(stage)
        images, labels = self.train_set.tensors
        self.train_set = self.val_set = self.test_set = TensorDataset((images * 50 + 128).clamp(0, 255).byte(), labels)


@pytest.mark.parametrize("data", [RandomImages, Bytes])
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_images_are_of_the_trainers_precision_and_probabilities_add_up_to_1(data, precision, tmp_path):
    options = {"mixup": 0.2, "cutmix": 1.0, "class_weights": "balanced", "macro_metrics": True}
    module = ImageClassifier(SmallCNN(), **options)
    trainer = fit(module, tmp_path, data(), precision=precision)
    for probabilities in trainer.predict(module, data()):
        torch.testing.assert_close(probabilities.sum(1), torch.ones(4), rtol=0, atol=1e-6)


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
    "options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"mixup": -1.0}, {"cutmix": -0.5}], ids=repr
)
def test_impossible_options_are_named(options):
    with pytest.raises(ValueError, match="Invalid {}: {}".format(*next(iter(options.items())))):
        ImageClassifier(SmallCNN(), **options)


@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 0.3}, {"mixup": 1.0}, {"cutmix": 1.0}, {"label_smoothing": 0.3, "mixup": 1.0, "cutmix": 1.0}],
    ids=repr,
)
def test_smoothing_and_mixing_change_the_training_loss_and_no_other(options):
    """The loss by which runs are compared stays the cross-entropy."""
    batch = torch.rand(16, 1, 8, 8), torch.arange(16) % 10

    def losses(**options):
        torch.manual_seed(0)
        module = ImageClassifier(SmallCNN(1, 10), **options)
        module.configure_model()
        module.log = lambda *_, **__: None
        module.eval()
        module.validation_step(batch, 0)
        return module.val_metrics["loss"].compute(), module.training_step(batch, 0)

    validation, training = losses()
    assert validation == training
    with_options = losses(**options)
    assert with_options[0] == validation
    assert with_options[1].isfinite() and with_options[1] != training


def test_with_mixing_training_accuracy_counts_the_label_of_the_larger_weight():
    weights = torch.tensor([[0.3, 0.7], [0.6, 0.4]])

    class Mix(torch.nn.Module):
        def forward(self, images, labels):
            return images, torch.nn.functional.pad(weights, (0, 8))

    class Predict(torch.nn.Module):
        def forward(self, images):
            return 5 * torch.eye(10)[[1, 0]]

    module = ImageClassifier(Predict(), num_classes=10, mixup=0.2)
    module.configure_model()
    module.training_loss.mixing = Mix()
    module.log = lambda *_, **__: None
    module.training_step((torch.rand(2, 1, 8, 8), torch.tensor([0, 1])), 0)
    assert module.train_metrics["accuracy"].compute() == 1


def test_channels_last_is_the_layout_of_weights_and_images(tmp_path):
    layouts = []

    class Spy(SmallCNN):
        def forward(self, images):
            layouts.append(images.is_contiguous(memory_format=torch.channels_last))
            return super().forward(images)

    class Rgb(DigitsDataModule):
        in_channels = 3

        def on_after_batch_transfer(self, batch, dataloader_idx):
            images, labels = batch
            return images.repeat(1, 3, 1, 1), labels

    module = ImageClassifier(Spy(width=4), channels_last=True)
    fit(module, tmp_path, Rgb(), limit_train_batches=2, limit_val_batches=1)
    assert module.network.block2[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert layouts and all(layouts)


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
    """After training, the module has the average; the run itself is the one without it."""
    callbacks = pytest.importorskip("pytorch_lightning.callbacks.weight_averaging", reason="new in Lightning 2.6")
    average = callbacks.EMAWeightAveraging(decay=0.9)
    weights = []
    for kept in ([], [average]):
        pl.seed_everything(0, verbose=False)
        weights.append(fit_with(tmp_path, callbacks=kept).network.classifier.weight)
    last, averaged = weights
    assert torch.equal(average._average_model.module.network.classifier.weight, averaged)
    assert not torch.equal(averaged, last) and torch.allclose(averaged, last, atol=0.01)


def test_the_confusion_matrix_is_in_tensorboard_ever_more_seldom(tmp_path):
    module = ImageClassifier(SmallCNN(width=4))
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = fit(module, tmp_path, logger=logger, max_epochs=5, limit_train_batches=1, limit_val_batches=1)
    trainer.test(module, DigitsDataModule(), verbose=False)
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Images("val/confusion_matrix")] == [1, 2, 4]
    assert len(events.Images("test/confusion_matrix")) == 1


def test_names_that_no_font_can_write_are_listed_in_tensorboard(tmp_path):
    class Named(DigitsDataModule):
        class_names = [chr(0x13000 + number) for number in range(10)]

    logger = pl.loggers.TensorBoardLogger(tmp_path)
    module = ImageClassifier(SmallCNN(width=4))
    fit(module, tmp_path, Named(), logger=logger, limit_train_batches=1, limit_val_batches=1)
    (text,) = EventAccumulator(logger.log_dir).Reload().Tensors("class_names/text_summary")
    assert "- 9: \U00013009" in text.tensor_proto.string_val[0].decode()


def test_more_than_100_classes_have_no_confusion_matrix():
    module = ImageClassifier(SmallCNN(1, 101))
    module.configure_model()
    assert module.confusion is None


def test_one_class_alone_is_refused_before_training(tmp_path):
    class Zeros(DigitsDataModule):
        num_classes = 1

    with pytest.raises(ValueError, match="There is 1 class, .* Give images of two or more: for yes or no"):
        fit(ImageClassifier(SmallCNN()), tmp_path, Zeros())
