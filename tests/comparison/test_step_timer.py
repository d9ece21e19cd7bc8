"""The share that the optimizer's steps have in the time of training."""

import math
import time

import pytest
import pytorch_lightning as pl
import torch

from lightning_adabelief import AdaBelief, release_gradients
from tests.comparison.small_module import Regression, fit, read_outcome

PAUSE = 0.05


class SlowSGD(torch.optim.SGD):
    def _init_group(self, *arguments):  # a step calls it once for each param group
        time.sleep(PAUSE)
        return super()._init_group(*arguments)


class Slow(Regression):
    """Takes three times as long as its optimizer's step."""

    def __init__(self):
        super().__init__(lambda params: SlowSGD(params, lr=0.05))

    def training_step(self, batch, batch_idx):
        time.sleep(3 * PAUSE)
        return super().training_step(batch, batch_idx)


class SlowManual(Slow):
    def __init__(self, use_pl_optimizer):
        super().__init__()
        self.automatic_optimization = False
        self.use_pl_optimizer = use_pl_optimizer

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=self.use_pl_optimizer)
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


@pytest.mark.parametrize(
    "make_module",
    [Slow, lambda: SlowManual(True), lambda: SlowManual(False)],
    ids=["automatic", "manual", "raw optimizer"],
)
def test_the_share_is_of_the_steps_without_the_passes_that_lightning_runs_in_them(make_module, tmp_path):
    fit(tmp_path, make_module(), max_epochs=1)
    outcome = read_outcome(tmp_path)
    assert 0.1 < outcome.optimizer_share < 0.35 and outcome.steps == 6


class SlowFirst(pl.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        time.sleep(0 if trainer.global_step else 1)


def test_the_first_batch_does_not_count(tmp_path):
    fit(tmp_path, Slow(), callbacks=[SlowFirst()], max_epochs=1)
    assert read_outcome(tmp_path).optimizer_share < 0.35


class Releasing(Regression):
    def configure_optimizers(self):
        optimizer = AdaBelief(self.parameters(), lr=1e-3)
        release_gradients(self, optimizer)
        return optimizer


def test_of_steps_in_the_backward_pass_no_share_is_told(tmp_path):
    fit(tmp_path, Releasing(), ["lightning_adabelief.AdaBelief"], max_epochs=1)
    assert math.isnan(read_outcome(tmp_path).optimizer_share)
