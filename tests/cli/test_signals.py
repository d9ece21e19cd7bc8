"""SIGTERM and Ctrl-C: what a run leaves, says, and ends with."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed",
    "ignore:You requested to overfit",
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
            if trainer.is_global_zero:
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
    return main([words[0], "--config=digits-cnn", *words[1:]])


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
    whole, resumed = (
        weights_and_state(f"logs/digits-cnn/{run}/checkpoints/last.ckpt") for run in ("whole", "version_0")
    )
    torch.testing.assert_close(whole, resumed, rtol=0, atol=0)


def test_ctrl_c_ends_with_130(capsys):
    assert fit(send("train", signum=signal.SIGINT)) == 130
    captured = capsys.readouterr()
    assert "Ctrl-C: a checkpoint is saved after this batch" in captured.err or "Stopped by Ctrl-C" in captured.err
    assert "tensorboard --logdir logs/digits-cnn" in captured.out and "most notable layers" in captured.out
    assert Path("logs/digits-cnn/version_0/checkpoints/interrupted.ckpt").is_file()


def test_the_checkpoint_that_a_resumed_run_named_is_not_named_again(capsys):
    assert fit(send("train", epoch=0)) == 143
    last = "logs/digits-cnn/version_0/checkpoints/interrupted.ckpt"
    assert fit(send("train", epoch=1), "--ckpt_path", last) == 143
    (line,) = re.findall(r"^  (adabelief .*)$", capsys.readouterr().err.split("Stopped")[2], re.MULTILINE)
    assert line.count("--ckpt_path") == 1


def test_where_no_checkpoints_are_wanted_or_possible_it_says_so(capsys):
    assert fit(send("train"), "--trainer.enable_checkpointing=false", "--trainer.callbacks=null") == 0  # none is sent
    capsys.readouterr()
    Path("logs/digits-cnn/mine/checkpoints/interrupted.ckpt").mkdir(parents=True)
    assert fit(send("train"), "--trainer.logger.version=mine") == 143
    error = capsys.readouterr().err
    assert "Stopped by SIGTERM. No checkpoint could be saved: " in error and "interrupted.ckpt" in error


def test_a_signal_after_the_training_says_what_is_left_to_do(capsys):
    assert fit(send("test", epoch=3)) == 143
    error = capsys.readouterr().err
    assert "Stopped by SIGTERM. The training had ended; test its checkpoint with\n  adabelief test --config=" in error
    (line,) = re.findall(r"^  adabelief (.*)$", error, re.MULTILINE)
    words = [word for word in shlex.split(line) if not word.startswith("--config")]
    assert main([words[0], "--config=digits-cnn", *words[1:]]) == 0


def test_other_handlers_are_back_afterwards():
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    assert fit(send("train")) == 143
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


STUCK = """
import time
from lightning_adabelief.recipes.image_classification import ImageClassifier

class Stuck(ImageClassifier):
    def training_step(self, batch, batch_idx):
        print("training", flush=True)
        while True:
            time.sleep(0.01)
"""


def start(*words):
    words = [sys.executable, "-m", "lightning_adabelief", "fit", *words, "--trainer.enable_progress_bar=false"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_second_signal_ends_at_once():
    Path("stuck.py").write_text(STUCK)
    network = "--model.network=lightning_adabelief.recipes.image_classification.SmallCNN"
    with start("--config=digits-cnn", "--model=stuck.Stuck", network) as process:
        while process.stdout.readline().strip() != "training":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Ctrl-C: a checkpoint is saved after this batch. A second one ends at once" in process.stdout.read()


def test_before_there_is_anything_to_save_a_signal_ends_at_once():
    with start("--config=digits-cnn") as process:
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():  # in the middle of imports
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stdout.read().splitlines()[-1].startswith("Stopped by SIGTERM.")


def test_rank_0_of_two_ends_with_143_and_a_checkpoint():
    devices = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    with start(f"--config={send('train')}", *devices, "--trainer.max_epochs=9") as process:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 143
    assert "interrupted.ckpt. Go on with" in said and "Traceback" not in said
    checkpoint = torch.load("logs/digits-cnn/version_0/checkpoints/interrupted.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1
