"""A run that is resumed from any of its checkpoints goes on as the uninterrupted one, to the bit."""

import csv
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric, MetricCollection

from lightning_adabelief import AdaBelief
from lightning_adabelief.callbacks import ExactResume

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),
]


class Noisy(Dataset):
    """Numbers, each with noise of all three libraries."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


class Drawing(pl.LightningModule):
    """Draws random numbers of all three libraries wherever it can, and keeps them with the batches."""

    def __init__(self, manual=False, plateau=False):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.dropout = torch.nn.Dropout(0.3)
        self.means = MetricCollection({"mean": MeanMetric(), "same": MeanMetric()})
        self.automatic_optimization = not manual
        self.plateau = plateau
        self.seen = []

    def draw(self, hook):
        self.seen.append((hook, self.current_epoch, random.random(), np.random.rand(), torch.rand(()).item()))

    def on_train_start(self):
        torch.rand(3)

    def on_train_epoch_start(self):
        self.draw("epoch start")

    def on_train_epoch_end(self):
        self.draw("epoch end")
        self.log("end", 2.0)

    def validation_step(self, batch, batch_idx):
        self.draw("validation")
        self.log("val", self.first(batch).square().mean())

    def compute_loss(self, layer, batch):
        return self.dropout(layer(batch / 10)).square().mean()

    def training_step(self, batch, batch_idx):
        self.seen.append(("batch", batch_idx, *batch.flatten().tolist()))
        self.means.update(batch)
        for name, metric in self.means.items(copy_state=False):
            self.log(name, metric, on_step=False, on_epoch=True)
        self.log("sum", batch.sum(), on_step=True, on_epoch=True)
        if self.automatic_optimization:
            return self.compute_loss(self.first, batch) + self.compute_loss(self.second, batch)
        for optimizer, layer in zip(self.optimizers(), (self.first, self.second), strict=True):
            optimizer.zero_grad()
            self.manual_backward(self.compute_loss(layer, batch))
            optimizer.step()
            if batch_idx % 2:
                break
        return None

    def configure_optimizers(self):
        if not self.automatic_optimization:
            return [AdaBelief(layer.named_parameters(), lr=1e-2) for layer in (self.first, self.second)]
        optimizer = AdaBelief(self.named_parameters(), lr=1e-2)
        if not self.plateau:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


class SaveEverywhere(pl.callbacks.Checkpoint):
    """Save where Lightning's ModelCheckpoint may, with the number of draws so far."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, module, name):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{len(module.seen):03}-{name}.ckpt")

    def on_train_batch_end(self, trainer, module, *_):
        self.save(trainer, module, "batch")

    def on_validation_end(self, trainer, module):
        self.save(trainer, module, "validation")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, module, "epoch")


def fit(folder, seed, module, saving=(), ckpt_path=None, workers=None, **options):
    pl.seed_everything(seed, workers=True, verbose=False)
    for param in module.parameters():
        torch.nn.init.constant_(param, 0.1)
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[ExactResume(), *saving],
        enable_checkpointing=bool(saving),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        **{"max_epochs": 3, "num_sanity_val_steps": 0, "logger": CSVLogger(folder, name="logs")} | options,
    )
    train = DataLoader(Noisy(), batch_size=4, shuffle=True, **workers or {})
    trainer.fit(module, train, DataLoader(Noisy(), batch_size=10, **workers or {}), ckpt_path=ckpt_path)
    return trainer


def read_rows(trainer):
    with open(Path(trainer.log_dir, "metrics.csv"), newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def resume_from_each(folder, every=1, model=(), **options):
    """Yield the name of each checkpoint, and what is left of the whole run and was done by the resumed one."""
    whole = Drawing(*model)
    rows = read_rows(fit(folder, 0, whole, [SaveEverywhere(folder)], **options))
    paths = sorted(folder.glob("*.ckpt"))
    assert len(paths) > 10
    for path in paths[::every]:
        resumed = Drawing(*model)
        its_rows = read_rows(fit(folder, 7, resumed, ckpt_path=path, **options))
        done = int(path.name.partition("-")[0])
        expected = (whole.seen[done:], rows[len(rows) - len(its_rows) :], whole.state_dict())
        yield path.name, expected, (resumed.seen, its_rows, resumed.state_dict())


def assert_same(expected, got, name):
    (draws, rows, weights), (its_draws, its_rows, its_weights) = expected, got
    assert its_draws == draws, name
    assert its_rows == rows, name
    assert all(torch.equal(its_weights[key], value) for key, value in weights.items()), name


CASES = {
    "validation each epoch": {},
    "validation every second epoch": dict(check_val_every_n_epoch=2, max_epochs=4),
    "two optimizers, validation within the epoch": dict(model=(True,), val_check_interval=0.5),
    "no validation": dict(limit_val_batches=0),
    "accumulated gradients": dict(accumulate_grad_batches=2),
    "a schedule that depends on a metric": dict(model=(False, True)),
    "reloaded data": dict(reload_dataloaders_every_n_epochs=2, max_epochs=4),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_a_run_resumed_anywhere_draws_trains_and_logs_as_the_uninterrupted_one(options, tmp_path):
    for name, expected, got in resume_from_each(tmp_path, **options):
        assert_same(expected, got, name)


def test_with_max_steps_weights_and_batches_are_those_of_the_uninterrupted_run(tmp_path):
    """Lightning calls the hooks of an epoch's end once more, if that is where the checkpoint is from."""
    for name, (draws, _, weights), (its_draws, _, its_weights) in resume_from_each(
        tmp_path, max_steps=12, max_epochs=-1
    ):
        batches = [[draw for draw in of if draw[0] == "batch"] for of in (draws, its_draws)]
        assert batches[0] == batches[1], name
        assert all(torch.equal(its_weights[key], value) for key, value in weights.items()), name


def test_workers_draw_the_same_augmentation(tmp_path):
    for name, expected, got in resume_from_each(tmp_path, every=4, workers=dict(num_workers=2), max_epochs=2):
        assert_same(expected, got, name)


def lines(caplog):
    found = [record.message for record in caplog.records if record.message.startswith("ckpt_path")]
    caplog.clear()
    return found


def test_checkpoints_load_with_weights_only_and_lack_nothing(tmp_path, caplog):
    trainer = fit(tmp_path, 0, Drawing(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    states = torch.load(tmp_path / "x.ckpt", weights_only=True)["exact_resume"]["ranks"][0]["now"]
    assert {"torch", "numpy", "python"} <= states.keys()
    fit(tmp_path, 0, Drawing(), ckpt_path=tmp_path / "x.ckpt", max_epochs=2)
    assert lines(caplog) == []


def change(path, **place):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["exact_resume"]["place"] |= place
    torch.save(checkpoint, path)


def test_a_resume_that_cannot_be_exact_says_in_one_line_why(tmp_path, caplog):
    fit(tmp_path, 0, Drawing(), [SaveEverywhere(tmp_path)], max_epochs=1)
    within, *_, last = sorted(tmp_path.glob("*.ckpt"))
    change(within, num_workers=[4], batches_per_epoch=7)
    lines(caplog)
    with caplog.at_level(logging.INFO):
        fit(tmp_path, 0, Drawing(), ckpt_path=within, max_epochs=1)
        assert lines(caplog) == [
            "ckpt_path: an epoch has 7 batches in the checkpoint and 5 in this run: what is left of this one is not "
            "what was left",
            "ckpt_path: num_workers is 4 in the checkpoint and 0 in this run: what is drawn as data are loaded, such "
            "as augmentation, is drawn anew",
            "ckpt_path: epoch 0 goes on after batch 1 of 5; the batches before are loaded again, and left out",
        ]
        checkpoint = torch.load(last, weights_only=True)
        checkpoint["exact_resume"]["ranks"] *= 2
        torch.save(checkpoint, tmp_path / "ranks.ckpt")
        fit(tmp_path, 0, Drawing(), ckpt_path=tmp_path / "ranks.ckpt", max_epochs=2)
        del checkpoint["exact_resume"]
        torch.save(checkpoint, tmp_path / "old.ckpt")
        fit(tmp_path, 0, Drawing(), ckpt_path=tmp_path / "old.ckpt", max_epochs=2)
    anew = "the order of the data, dropout and augmentation are drawn anew"
    assert lines(caplog) == [
        f"ckpt_path: the number of ranks is 2 in the checkpoint and 1 in this run; {anew}",
        f"ckpt_path: the checkpoint holds no random states; {anew}",
    ]


def test_persistent_workers_keep_the_order_and_it_is_said_that_they_draw_anew(tmp_path, caplog):
    workers = dict(num_workers=1, persistent_workers=True)
    whole = Drawing()
    fit(tmp_path, 0, whole, [SaveEverywhere(tmp_path)], workers=workers, max_epochs=3)
    resumed = Drawing()
    path = min(tmp_path.glob("*-epoch.ckpt"))
    with caplog.at_level(logging.INFO):
        fit(tmp_path, 7, resumed, ckpt_path=path, workers=workers, max_epochs=3)
    assert [line for line in lines(caplog) if "persistent workers begin with new random states" in line]
    done = int(path.name.partition("-")[0])
    orders = [[draw[2::4] for draw in of if draw[0] == "batch"] for of in (whole.seen[done:], resumed.seen)]
    assert orders[0] == orders[1]
    draws = [[draw for draw in of if draw[0] != "batch"] for of in (whole.seen[done:], resumed.seen)]
    assert draws[0] == draws[1], "the validation's workers are made without a draw"


def test_two_ranks_go_on_each_with_its_own_random_states(tmp_path):
    script = Path(__file__).with_name("resumed_ranks.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, resumed = (
        [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)]
        for name in ("whole", "resumed")
    )
    for rank in (0, 1):
        assert resumed[rank] == whole[rank]
    assert whole[0] != whole[1]
