"""Changes after the optimizer was built: the length of the run, and a search for a learning rate."""

import logging

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from pytorch_lightning.tuner import Tuner
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief, build_optimizer
from tests.configure.nets import DATA, Net, Recording, make_trainer


def batches(size=4):
    return DataLoader(DATA, batch_size=size)


def cosine(**options):
    return Recording(lr=1.0, warmup=0.1, schedule="cosine", **options)


def last_lr(trainer):
    return trainer.optimizers[0].param_groups[0]["lr"]


def test_a_second_fit_has_its_schedule_over_its_own_steps():
    trainer = make_trainer(max_epochs=3)
    trainer.fit(cosine(), batches())
    trainer.fit_loop.max_epochs = 5
    module = cosine()
    trainer.fit(module, batches())
    assert len(module.lrs) == 12 and module.lrs[:3] == [1.0] * 3 and module.lrs[-1] > 0.01
    assert last_lr(trainer) == pytest.approx(0, abs=1e-12)


class Growing(pl.LightningDataModule):
    """Data that are more with each epoch."""

    epochs = 0

    def train_dataloader(self):
        self.epochs += 1
        return DataLoader(DATA.repeat(self.epochs, 1), batch_size=4)


def test_data_that_grow_have_the_schedule_laid_anew_without_a_jump(caplog):
    module, trainer = cosine(), make_trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1)
    with caplog.at_level(logging.INFO):
        trainer.fit(module, Growing())
    assert len(module.lrs) == 6 + 12 + 18 and "laid over 30 steps" in caplog.text and "laid over 36" in caplog.text
    steps = [before - after for before, after in zip(module.lrs, module.lrs[1:], strict=False)]
    assert all(0 <= step < 0.15 for step in steps) and 0 < module.lrs[-1] < 0.01
    assert last_lr(trainer) == pytest.approx(0, abs=1e-12)


class Accumulate(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        trainer.accumulate_grad_batches = 1 if trainer.current_epoch == 0 else 3


def test_accumulation_that_changes_has_the_schedule_laid_anew():
    module, trainer = cosine(), make_trainer(max_epochs=4, callbacks=[Accumulate()])
    trainer.fit(module, batches())
    assert len(module.lrs) == 6 + 3 * 2 and last_lr(trainer) == pytest.approx(0, abs=1e-12)


class Sized(Recording):
    """Takes its data in batches of a size that is searched for."""

    batch_size = 2

    def train_dataloader(self):
        return DataLoader(DATA, batch_size=self.batch_size)


@pytest.mark.filterwarnings("ignore:.*")
def test_the_batch_size_that_was_found_is_counted_with(tmp_path, caplog):
    module = Sized(lr=1.0, warmup=0.5, schedule="cosine")
    finder = BatchSizeFinder(init_val=2, max_trials=3)
    trainer = make_trainer(max_epochs=3, callbacks=[finder], default_root_dir=tmp_path)
    with caplog.at_level(logging.INFO):
        trainer.fit(module)
    steps = 3 * len(trainer.train_dataloader)
    assert module.batch_size != 2 and len(module.lrs) == steps
    assert trainer.optimizers[0].param_groups[0]["total_steps"] == steps
    assert caplog.text.count("laid over") == 1, "the search itself is left alone"
    assert last_lr(trainer) == pytest.approx(0, abs=1e-12)


def test_a_run_that_is_as_it_was_counted_says_nothing(caplog):
    with caplog.at_level(logging.INFO):
        make_trainer(max_epochs=3, accumulate_grad_batches=4).fit(cosine(), batches())
        make_trainer(max_steps=7, max_epochs=9).fit(cosine(), batches())
    assert "laid over" not in caplog.text


class Searched(Net):
    """A net that keeps its losses, for those of Lightning's finder are smoothed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.lr, self.losses = 1e-3, []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        if "callable" in self.options:
            return build_optimizer(self.options["callable"], self)
        return super().configure_optimizers()


def rate_of_the_fall(tmp_path, **options):
    """Search for a rate, and return the one at which half of the loss's fall is over."""
    torch.manual_seed(0)
    trainer = make_trainer(max_epochs=100, default_root_dir=tmp_path)
    module = Searched(**options)
    search = dict(min_lr=1e-5, max_lr=1.0, num_training=100, update_attr=False, early_stop_threshold=None)
    found = Tuner(trainer).lr_find(module, batches(len(DATA)), **search)
    half = (module.losses[0] + min(module.losses)) / 2
    rates = zip(found.results["lr"], module.losses, strict=True)
    return next(rate for rate, loss in rates if loss < half), trainer.optimizers[0]


SCALED = [
    dict(warmup=500),
    dict(rectify=True),
    dict(warmup=0.5),
    dict(callable=lambda params: AdaBelief(params, warmup=500)),
]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("options", SCALED, ids=["warmup", "rectify", "fraction", "callable"])
def test_in_a_search_the_rate_tried_is_the_rate_that_acts(options, tmp_path, caplog):
    plain, _ = rate_of_the_fall(tmp_path, rectify=False, warmup=0)
    with caplog.at_level(logging.INFO):
        scaled, optimizer = rate_of_the_fall(tmp_path, **options)
    assert scaled == plain > 1e-3
    assert caplog.text.count("the rate tried is the rate that acts") == 1
    (group,) = optimizer.param_groups
    assert group["warmup"] or group["rectify"], "after the search the optimizer is as configured"


@pytest.mark.filterwarnings("ignore:.*")
def test_after_a_search_by_callback_the_run_warms_up_as_configured(tmp_path):
    module = Searched(warmup=0.5, schedule="linear")
    finder = LearningRateFinder(min_lr=1e-5, max_lr=0.1, num_training_steps=30)
    trainer = make_trainer(max_epochs=3, callbacks=[finder], default_root_dir=tmp_path)
    trainer.fit(module, batches())
    (group,) = trainer.optimizers[0].param_groups
    assert (group["warmup"], group["total_steps"], group["rectify"]) == (0.5, 18, False)
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {18}
    assert last_lr(trainer) == pytest.approx(0, abs=1e-12)
