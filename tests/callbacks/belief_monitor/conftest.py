"""A small network on noise, and the ways to train it and to read what was logged."""

import csv
from collections import defaultdict

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from lightning_adabelief import AdaBelief


class Net(pl.LightningModule):
    """Two layers; subclasses change what the optimizer is."""

    def __init__(self, **options):
        super().__init__()
        self.encoder = torch.nn.Linear(6, 5)
        self.head = torch.nn.Linear(5, 1)
        self.options = {"lr": 1e-2, "rectify": False} | options

    def training_step(self, batch, batch_idx):
        loss = self.head(self.encoder(batch[0]).relu()).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return AdaBelief(self.named_parameters(), **self.options)


def loader(batches=12):
    images = torch.randn(batches * 4, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images), batch_size=4)


def _latest(folder):
    return max(folder.iterdir(), key=lambda path: int(path.name.removeprefix("version_")))


@pytest.fixture
def fit(tmp_path):
    """Train, and return the Trainer; loggers are TensorBoard and CSV unless given."""

    def run(module, *callbacks, ckpt_path=None, batches=12, **options):
        loggers = [TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path, name="csv")]
        options = {"max_epochs": 1, "log_every_n_steps": 5, "logger": loggers} | options
        trainer = pl.Trainer(
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            callbacks=list(callbacks),
            **options,
        )
        trainer.fit(module, loader(batches), ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture
def tensorboard(tmp_path):
    """Read TensorBoard's files back: ``scalars()[tag] = {step: value}`` and the accumulator."""

    def read():
        accumulator = EventAccumulator(str(_latest(tmp_path / "tb")), size_guidance={"scalars": 0, "histograms": 0})
        accumulator.Reload()
        tags = accumulator.Tags()["scalars"]
        return {tag: {e.step: e.value for e in accumulator.Scalars(tag)} for tag in tags}, accumulator

    return read


@pytest.fixture
def csv_rows(tmp_path):
    """Read the CSV back, in the form of ``tensorboard``'s scalars."""

    def read():
        scalars = defaultdict(dict)
        with open(_latest(tmp_path / "csv") / "metrics.csv", newline="") as file:
            for row in csv.DictReader(file):
                for tag, value in row.items():
                    if tag not in ("step", "epoch") and value:
                        scalars[tag][int(row["step"])] = float(value)
        return dict(scalars)

    return read
