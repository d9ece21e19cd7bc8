"""What can't be written does not take with it what was."""

import os
import sys
from pathlib import Path

import pytest
import torch

from lightning_adabelief.cli.main import main

QUICK = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
CSV = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv", "--trainer.logger.version=mine"]
RUN = ["fit", "--config=digits-cnn", *QUICK, "--trainer.enable_progress_bar=false"]
OWN = """
import resource
import pytorch_lightning as pl

class Failing(pl.loggers.CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("no route to host")

    def finalize(self, status):
        raise ConnectionError("no route to host")

class FullDisk(pl.Callback):  # no file grows beyond this many bytes
    def __init__(self, size: int):
        self.size = size

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))

    def on_exception(self, trainer, module, exception):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def on_train_end(self, trainer, module):
        self.on_exception(trainer, module, None)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("unlucky.py").write_text(OWN)
    yield
    sys.modules.pop("unlucky", None)


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_run_that_is_refused_leaves_the_one_of_its_version_as_it_is(command, capsys):
    assert main([*RUN, *CSV]) == 0
    before = contents("csv")
    assert any(path.name == "metrics.csv" for path in before)
    capsys.readouterr()
    checkpoint = ["--ckpt_path=csv/digits-cnn/mine/checkpoints/best.ckpt"] if command == "test" else []
    assert main([command, *RUN[1:], *CSV, *checkpoint]) == 1
    assert "csv/digits-cnn/mine holds another run, and is left as it is. Give another" in capsys.readouterr().err
    assert contents("csv") == before


def test_metrics_that_a_logger_would_delete_are_another_run(capsys):
    Path("csv/digits-cnn/mine").mkdir(parents=True)
    Path("csv/digits-cnn/mine/metrics.csv").write_text("a,b\n1,2\n")
    assert main([*RUN, *CSV]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert Path("csv/digits-cnn/mine/metrics.csv").read_text() == "a,b\n1,2\n"


def test_a_logger_that_raises_is_said_once_and_ends_no_run():
    with pytest.warns(UserWarning, match="Failing could not write to .*: no route to host. Training goes on") as warned:
        assert main([*RUN, "--trainer.logger=unlucky.Failing", "--trainer.logger.save_dir=csv"]) == 0
    assert sum("Failing could not write" in str(warning.message) for warning in warned) == 1
    assert list(Path().rglob("best.ckpt"))


def test_a_log_that_no_longer_fits_on_the_disk_ends_no_run(capfd):
    full = ["--trainer.callbacks=unlucky.FullDisk", "--trainer.callbacks.size=1000"]
    with pytest.warns(UserWarning, match="TensorBoardLogger could not write to .*version_0: .*File too large"):
        assert main([*RUN, *full, "--trainer.enable_checkpointing=false"]) == 0
    captured = capfd.readouterr()
    assert "test/accuracy" in captured.out and "Traceback" not in captured.err


def test_where_a_checkpoint_does_not_fit_on_the_disk_the_last_one_is_whole_and_the_error_names_the_file(capsys):
    full = ["--trainer.callbacks+=unlucky.FullDisk", "--trainer.callbacks.size=300000"]  # logs are smaller
    assert main([*RUN, *full]) == 1
    error = capsys.readouterr().err
    folder = "logs/digits-cnn/version_0/checkpoints"
    assert f"{folder}/best.ckpt" in error or f"{folder}/last.ckpt" in error
    assert "File too large" in error and "Traceback" not in error
    assert sorted(os.listdir(folder)) == ["best.ckpt", "last.ckpt"]
    assert torch.load(f"{folder}/last.ckpt", weights_only=True)["epoch"] == 0


def test_a_folder_that_takes_no_checkpoints_is_an_error_before_training(capsys):
    Path("kept").write_text("mine")
    another = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_epochs=9"]
    assert main([*RUN, *another, "--trainer.callbacks.dirpath=kept/here"]) == 1
    error = capsys.readouterr().err
    assert "kept" in error and "Not a directory" in error and "Traceback" not in error
    assert not list(Path().rglob("*.ckpt"))


def test_where_the_logs_would_go_there_is_a_file(capsys):
    Path("logs").write_text("mine")
    assert main(RUN) == 1
    error = capsys.readouterr().err
    assert "logs" in error and len(error) < 300
    assert Path("logs").read_text() == "mine"


def test_a_folder_that_vanishes_is_made_again(capsys):
    Path("gone.py").write_text(
        "import shutil, pytorch_lightning as pl\n"
        "class Gone(pl.Callback):\n"
        "    def on_train_epoch_start(self, trainer, module):\n"
        "        if trainer.current_epoch == 1:\n"
        "            shutil.rmtree('logs')\n"
    )
    assert main([*RUN, "--trainer.callbacks+=gone.Gone"]) == 0
    sys.modules.pop("gone", None)
    assert torch.load("logs/digits-cnn/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
