"""Several ``configure_adabelief`` in one ``configure_optimizers``."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_adabelief import configure_adabelief


class Pair(pl.LightningModule):
    """Two networks, each with an optimizer of its own."""

    automatic_optimization = False

    def __init__(self, returned):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
        self.returned = returned

    def configure_optimizers(self):
        return self.returned(self)

    def training_step(self, batch, batch_idx):
        for network, optimizer in zip((self.first, self.second), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(network(batch).square().mean())
            optimizer.step()


def build(module, part, schedule=None):
    return configure_adabelief(part, trainer=module.trainer, schedule=schedule, steps_per_batch=1, warmup=2)


def fit(returned):
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(Pair(returned), torch.utils.data.DataLoader(torch.randn(8, 4)))
    return trainer


def test_one_with_a_schedule_and_one_without_are_refused_with_the_two_ways_to_return_them():
    with pytest.raises(MisconfigurationException, match=r"(?s)Unknown configuration.*\[a\['optimizer'\], b\]"):
        fit(lambda module: [build(module, module.first, "cosine"), build(module, module.second)])


def test_a_schedule_each_is_taken():
    trainer = fit(lambda module: [build(module, module.first, "cosine"), build(module, module.second, "linear")])
    assert len(trainer.optimizers) == len(trainer.lr_scheduler_configs) == 2


def test_optimizers_and_schedules_apart_are_taken():
    def returned(module):
        a, b = build(module, module.first, "cosine"), build(module, module.second)
        return [a["optimizer"], b], [a["lr_scheduler"]]

    trainer = fit(returned)
    assert len(trainer.optimizers) == 2 and len(trainer.lr_scheduler_configs) == 1
