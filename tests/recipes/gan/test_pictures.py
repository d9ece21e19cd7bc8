"""Samples, interpolations and loss curves."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adabelief.recipes.gan import ClassifierScores, Pictures
from lightning_adabelief.recipes.gan.curves import find_best
from lightning_adabelief.recipes.gan.drawing import draw_beside_real, draw_interpolation, generate_images
from lightning_adabelief.recipes.gan.grids import TITLE_HEIGHT, draw_grid
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.recipes.gan.small_gan import make_gan, make_trainer


@pytest.mark.parametrize("num_classes", [None, 10])
def test_pictures_go_to_tensorboard_and_beside_the_logs(num_classes, tmp_path):
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    options = {"logger": logger, "callbacks": [Pictures()], "limit_train_batches": 4, "log_every_n_steps": 2}
    make_trainer(tmp_path, **options).fit(make_gan(num_classes=num_classes), DigitsDataModule())
    names = {path.name for path in (tmp_path / "lightning_logs/version_0/pictures").iterdir()}
    assert names == {"samples.png", "samples-0001.png", "beside_real.png", "interpolation.png", "losses.png"}, (
        "and no distance, as the GAN has no scores"
    )
    events = EventAccumulator(logger.log_dir).Reload()
    assert {"samples", "beside_real", "interpolation", "losses"} <= set(events.Tags()["images"])


def test_pictures_go_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True)
    options = {"logger": logger, "callbacks": [Pictures()], "limit_train_batches": 2, "log_every_n_steps": 2}
    gan = make_gan(scores=ClassifierScores(training_steps=2, num_samples=50))
    make_trainer(tmp_path, **options).fit(gan, DigitsDataModule())
    logger.experiment.finish()
    (images,) = tmp_path.glob("wandb/offline-run-*/files/media/images")
    assert {path.name.partition("_")[0] for path in images.iterdir()} == {
        "samples",
        "beside",
        "interpolation",
        "losses",
        "distance",
    }


def test_a_second_run_leaves_the_firsts_pictures_and_a_resumed_one_goes_on_with_its_own(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path, version="mine")
    folder = tmp_path / "lightning_logs/mine"

    def fit(epochs, seed, ckpt_path=None):
        options = {"logger": logger, "callbacks": [Pictures(seed)], "limit_train_batches": 1, "log_every_n_steps": 1}
        trainer = make_trainer(tmp_path, max_epochs=epochs, **options)
        trainer.fit(make_gan(), DigitsDataModule(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "x.ckpt")

    fit(1, seed=0)
    first = (folder / "pictures/samples.png").read_bytes()
    fit(1, seed=1)
    fit(2, seed=1, ckpt_path=tmp_path / "x.ckpt")
    assert (folder / "pictures/samples.png").read_bytes() == first
    assert {path.name for path in (folder / "pictures-2").glob("samples-*")} == {"samples-0001.png", "samples-0002.png"}
    assert not (folder / "pictures-3").exists()


def test_a_class_that_is_chosen_is_drawn_alone_and_many_images_are_drawn_in_batches(monkeypatch):
    gan = make_gan(num_classes=10).eval()
    noise, labels = gan.draw_noise(7), torch.full((7,), 3)
    whole = generate_images(gan, noise, labels)
    monkeypatch.setattr("lightning_adabelief.recipes.gan.drawing.BATCH_SIZE", 3)
    torch.testing.assert_close(generate_images(gan, noise, labels), whole)
    strips = draw_interpolation(gan, 0, label=3)
    assert torch.equal(strips, draw_interpolation(gan, 0, label=3))
    assert not torch.equal(strips, draw_interpolation(gan, 0, label=4))


def test_real_images_are_drawn_beside_as_many_generated_ones_under_their_names():
    gan = make_gan().eval()
    real = torch.rand(9, 1, 8, 8)
    picture = draw_beside_real(gan, 0, real)
    side = 3 * (64 + 8) + 8
    assert picture.shape == (3, TITLE_HEIGHT + side, 2 * side)
    assert torch.equal(picture[:, TITLE_HEIGHT:, side:], draw_grid(real))
    generated = generate_images(gan, gan.draw_noise(9, torch.Generator().manual_seed(0)))
    assert torch.equal(picture[:, TITLE_HEIGHT:, :side], draw_grid(generated))
    titles = picture[0, :TITLE_HEIGHT].split(side, dim=1)
    assert all((title > 200).any() for title in titles) and not torch.equal(*titles)


def test_losses_drawn_go_on_after_a_resume(tmp_path):
    pictures = Pictures()
    options = {"callbacks": [pictures], "limit_train_batches": 4, "log_every_n_steps": 2, "limit_val_batches": 0}
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(make_gan(), DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = Pictures()
    make_trainer(tmp_path, **options | {"callbacks": [again], "max_epochs": 2}).fit(
        make_gan(), DigitsDataModule(), ckpt_path=tmp_path / "x.ckpt"
    )
    assert [batch for batch, *_ in again._losses] == [2, 4, 6, 8]


def test_the_distances_curve_goes_on_after_a_resume_with_its_best_samples(tmp_path):
    """The best samples are those of the least distance of the average, and come from the checkpoint."""
    logger = pl.loggers.TensorBoardLogger(tmp_path)

    def fit(pictures, epochs, logger, ckpt_path=None):
        options = {"logger": logger, "callbacks": [pictures], "limit_train_batches": 1, "max_epochs": epochs}
        trainer = make_trainer(tmp_path, **options, log_every_n_steps=1)
        gan = make_gan(scores=ClassifierScores(training_steps=2, num_samples=50), ema_decay=0.5, n_critic=1)
        trainer.fit(gan, DigitsDataModule(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        return Path(logger.log_dir, "pictures"), trainer.callback_metrics

    pictures = Pictures()
    folder, metrics = fit(pictures, 2, logger)
    assert {"distance.png", "best_samples.png"} <= {path.name for path in folder.iterdir()}
    assert "distance" in EventAccumulator(logger.log_dir).Reload().Tags()["images"]
    last = pictures._validations[-1]
    assert last.distances == {
        "average": metrics["val/frechet_digits"].item(),
        "plain": metrics["val/frechet_digits_plain"].item(),
    }
    best = find_best(pictures._validations)
    assert_same_picture(folder / "best_samples.png", folder / f"samples-000{best.epoch}.png")

    resumed = Pictures()
    elsewhere, _ = fit(resumed, 3, pl.loggers.TensorBoardLogger(tmp_path, "elsewhere"), tmp_path / "x.ckpt")
    assert resumed._validations[:2] == pictures._validations
    assert [(validation.epoch, validation.batches) for validation in resumed._validations] == [(1, 1), (2, 2), (3, 3)]
    best = find_best(resumed._validations)
    of_best = elsewhere if best.epoch == 3 else folder
    assert_same_picture(elsewhere / "best_samples.png", of_best / f"samples-000{best.epoch}.png")


def assert_same_picture(first, second):
    with Image.open(first) as one, Image.open(second) as other:
        assert one.tobytes() == other.tobytes()
