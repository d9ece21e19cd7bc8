"""Logs that a resumed run goes on with are there, whenever the run was killed."""

import csv

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from lightning_adabelief.cli.continued_logs import LogLengths, continue_logs


class Killed(BaseException):
    pass


def read_rows(logger):
    with open(logger.experiment.metrics_file_path, newline="") as file:
        return list(csv.DictReader(file))


def save_checkpoint(trainer):
    checkpoint = {}
    LogLengths().on_save_checkpoint(trainer, None, checkpoint)
    return checkpoint


def log_a_new_metric_and_be_killed(logger, monkeypatch):
    """A new metric has the file written anew; the kill comes before its rows are."""

    def be_killed(*_):
        raise Killed

    logger.log_metrics({"val/loss": 0.5}, step=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(csv.DictWriter, "writerows", be_killed)
        logger.save()


def make_trainer(folder):
    logger = CSVLogger(folder, version=0)
    for step in range(2):
        logger.log_metrics({"loss": 1.0 + step}, step=step)
    return pl.Trainer(logger=logger), logger


def test_rows_before_a_checkpoint_survive_a_kill_while_a_new_metric_is_added(tmp_path, monkeypatch):
    trainer, logger = make_trainer(tmp_path)
    checkpoint = save_checkpoint(trainer)
    log_a_new_metric_and_be_killed(logger, monkeypatch)
    assert checkpoint["logs"][0]["lines"] == 3
    assert [row["loss"] for row in read_rows(logger)] == ["1.0", "2.0"]


def test_they_survive_in_a_resumed_run_too(tmp_path, monkeypatch):
    trainer, _ = make_trainer(tmp_path)
    path = tmp_path / "last.ckpt"
    torch.save(save_checkpoint(trainer), path)
    resumed = pl.Trainer(logger=CSVLogger(tmp_path))
    assert continue_logs(resumed, path)
    log_a_new_metric_and_be_killed(resumed.logger, monkeypatch)
    assert [row["loss"] for row in read_rows(resumed.logger)] == ["1.0", "2.0"]


def test_a_new_metric_takes_a_column(tmp_path):
    trainer, logger = make_trainer(tmp_path)
    save_checkpoint(trainer)
    logger.log_metrics({"val/loss": 0.5}, step=2)
    logger.save()
    assert [(row["loss"], row["val/loss"]) for row in read_rows(logger)] == [("1.0", ""), ("2.0", ""), ("", "0.5")]
