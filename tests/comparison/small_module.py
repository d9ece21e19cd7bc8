"""A module that takes its optimizer as an argument, data for it, and a Trainer with a record."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_adabelief.comparison.record import TrialRecord
from lightning_adabelief.comparison.trial import Outcome

DATA = torch.linspace(-1, 1, 24 * 4).sin().mul(9).sin().reshape(24, 4)


def make_sgd(params):
    return torch.optim.SGD(params, lr=0.05)


class Regression(pl.LightningModule):
    """Learns the sum of four numbers."""

    def __init__(self, optimizer=make_sgd):
        super().__init__()
        self.network = torch.nn.Linear(4, 1)
        self.optimizer = optimizer

    def compute_loss(self, batch):
        return (self.network(batch) - batch.sum(dim=1, keepdim=True)).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.compute_loss(batch)
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"loss": self.compute_loss(batch), "twice": 2 * self.compute_loss(batch)})

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.compute_loss(batch))

    def configure_optimizers(self):
        return self.optimizer(self.named_parameters())


def make_trainer(*callbacks, **options):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), **{"max_epochs": 3, **quiet, **options})


def make_record(folder, optimizers=("torch.optim.SGD",), metric="loss", mode="min"):
    return TrialRecord(str(folder / "outcome.json"), metric, mode, list(optimizers))


def fit(folder, module=None, optimizers=("torch.optim.SGD",), callbacks=(), metric="loss", mode="min", **options):
    """Train with a record in a folder; return the Trainer."""
    trainer = make_trainer(
        make_record(folder, optimizers, metric, mode), *callbacks, num_sanity_val_steps=-1, **options
    )
    trainer.fit(module or Regression(), DataLoader(DATA, batch_size=4), DataLoader(DATA, batch_size=8))
    return trainer


def read_outcome(folder):
    return Outcome.from_json((folder / "outcome.json").read_text())
