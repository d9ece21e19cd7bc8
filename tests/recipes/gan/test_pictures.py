"""Samples, interpolations and loss curves."""

import pytest
import pytorch_lightning as pl

from lightning_adabelief.recipes.gan import (
    Pictures,
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
    assert names == {"samples.png", "samples-0001.png", "interpolation.png", "losses.png"}
    events = EventAccumulator(logger.log_dir).Reload()
    assert {"samples", "interpolation", "losses"} <= set(events.Tags()["images"])


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
