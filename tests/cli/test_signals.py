"""SIGTERM and Ctrl-C: what a run leaves, says, and ends with."""

import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed",
    "ignore:You requested to overfit",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)
# Batches in a fixed order and no dropout: what is left to restore is not this test's matter.
RUN = [
    "--trainer.overfit_batches=4",
    "--trainer.log_every_n_steps=1",
    "--model.network.dropout=0",
    "--trainer.max_epochs=3",
    "--trainer.enable_progress_bar=false",
]
OWN = """
import os, signal
import pytorch_lightning as pl

class Send(pl.Callback):
    def __init__(self, hook: str, epoch: int = 1, batch: int = 0, signum: int = 15):
        self.hook, self.at, self.signum = hook, (epoch, batch), signum

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.send("train", trainer, batch_idx)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.send("validation", trainer, batch_idx)

    def on_test_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.send("test", trainer, batch_idx)

    def send(self, hook, trainer, batch_idx):
        if hook == self.hook and not trainer.sanity_checking and self.at == (trainer.current_epoch, batch_idx):
            os.kill(os.getpid(), self.signum)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sender.py").write_text(OWN)
    yield
    sys.modules.pop("sender", None)


def send(hook, epoch=1, batch=0, signum=signal.SIGTERM):
    given = yaml.safe_load(find("digits-cnn").path.read_text())
    arguments = {"hook": hook, "epoch": epoch, "batch": batch, "signum": int(signum)}
    given["trainer"]["callbacks"].insert(0, {"class_path": "sender.Send", "init_args": arguments})
    Path("sending.yaml").write_text(yaml.safe_dump(given))
    return "sending.yaml"


def fit(config, *words):
    return main(["fit", f"--config={config}", *RUN, *words])


def resume_as_told(error):
    """Run the command that an error message gives, without the signal."""
    (line,) = re.findall(r"^  adabelief (.*)$", error, re.MULTILINE)
    words = [word for word in shlex.split(line) if word != "--config=sending.yaml"]
    return main([words[0], "--config=digits-cnn", *words[1:], "--trainer.logger.version=resumed"])


def weights_and_state(path):
    checkpoint = torch.load(path, weights_only=True)
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("network")}
    return checkpoint["global_step"], weights, checkpoint["optimizer_states"][0]["state"], checkpoint["lr_schedulers"]


@pytest.mark.parametrize(
    ("hook", "batch"), [("train", 1), ("train", 3), ("validation", 2)], ids=["batch", "last batch", "validation"]
)
def test_a_run_that_sigterm_has_stopped_goes_on_as_told_and_ends_the_same(hook, batch, capsys):
    assert fit("digits-cnn", "--trainer.logger.version=whole") == 0
    assert fit(send(hook, batch=batch)) == 143
    error = capsys.readouterr().err
    assert "Stopped by SIGTERM. It has left logs/digits-cnn/version_0/checkpoints/interrupted.ckpt. Go on with" in error
    assert resume_as_told(error) == 0
    whole, resumed = (weights_and_state(f"logs/digits-cnn/{run}/checkpoints/last.ckpt") for run in ("whole", "resumed"))
    torch.testing.assert_close(whole, resumed, rtol=0, atol=0)
