"""Samples, interpolations and loss curves."""

import pytest
import pytorch_lightning as pl
import torch

from lightning_adabelief.recipes.gan import Pictures
from lightning_adabelief.recipes.gan.drawing import (
    TITLE_HEIGHT,
    draw_beside_real,
    draw_grid,
    draw_interpolation,
    draw_samples,
    generate_images,
)
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.recipes.gan.small_gan import make_gan, make_trainer


@pytest.mark.parametrize("num_classes", [None, 10])
def test_pictures_go_to_tensorboard_and_beside_the_logs(num_classes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = pl.loggers.TensorBoardLogger(tmp_path)
    options = {"logger": logger, "callbacks": [Pictures()], "limit_train_batches": 4, "log_every_n_steps": 2}
    make_trainer(tmp_path, **options).fit(make_gan(num_classes=num_classes), DigitsDataModule())
    names = {path.name for path in (tmp_path / "lightning_logs/version_0/pictures").iterdir()}
    assert names == {"samples.png", "samples-0001.png", "beside_real.png", "interpolation.png", "losses.png"}
    events = EventAccumulator(logger.log_dir).Reload()
    assert {"samples", "beside_real", "interpolation", "losses"} <= set(events.Tags()["images"])


def test_pictures_go_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True)
    options = {"logger": logger, "callbacks": [Pictures()], "limit_train_batches": 2, "log_every_n_steps": 2}
    make_trainer(tmp_path, **options).fit(make_gan(), DigitsDataModule())
    logger.experiment.finish()
    (images,) = tmp_path.glob("wandb/offline-run-*/files/media/images")
    assert {path.name.partition("_")[0] for path in images.iterdir()} == {
        "samples",
        "beside",
        "interpolation",
        "losses",
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
    assert draw_samples(gan, 0).shape == (3, 8 * (64 + 8) + 8, 10 * (64 + 8) + 8)
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
