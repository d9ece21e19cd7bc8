"""Small LightningModules, and a Trainer for them."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_adabelief import configure_adabelief

BATCHES = 6
DATA = torch.linspace(-1, 1, 24 * 4).sin().mul(9).sin().reshape(24, 4)


class Net(pl.LightningModule):
    """A network with norms and biases, trained by configure_adabelief."""

    def __init__(self, **options):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        )
        self.options = options

    def training_step(self, batch, batch_idx):
        return (self.network(batch) - batch.sum(dim=1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        return configure_adabelief(self, **self.options)


class Recording(Net):
    """Keeps the lr of each step, as the schedule set it."""

    def on_train_start(self):
        self.lrs = []

    def on_before_optimizer_step(self, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


class Stacked(pl.LightningModule):
    """A stem, three numbered blocks and a head."""

    def __init__(self, **options):
        super().__init__()
        self.stem = torch.nn.Linear(4, 4)
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, batch_first=True) for _ in range(3)
        )
        self.head = torch.nn.Linear(4, 1)
        self.options = options

    training_step = Net.training_step

    def network(self, batch):
        hidden = self.stem(batch).unsqueeze(1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.squeeze(1))

    def configure_optimizers(self):
        return configure_adabelief(self, **self.options)


def make_trainer(**options):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    return pl.Trainer(**{"accelerator": "cpu", **quiet, **options})


def fit(module, ckpt_path=None, **options):
    """Train, and return the optimizer; of several, all."""
    trainer = make_trainer(**options)
    trainer.fit(module, DataLoader(DATA, batch_size=len(DATA) // BATCHES), ckpt_path=ckpt_path)
    return trainer.optimizers[0] if len(trainer.optimizers) == 1 else trainer.optimizers
