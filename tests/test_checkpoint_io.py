"""Checkpoints are written beside their files, and a Trainer takes the plugin."""

import os

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_adabelief.checkpoint_io import AtomicCheckpointIO
from lightning_adabelief.cli.main import main

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"]


def test_an_old_checkpoint_is_replaced_and_never_written_into(tmp_path):
    path, other_name = tmp_path / "last.ckpt", tmp_path / "other_name.ckpt"
    saving = AtomicCheckpointIO()
    saving.save_checkpoint({"epoch": 0}, path)
    os.link(path, other_name)  # what is written into the file is seen under both names
    saving.save_checkpoint({"epoch": 1}, path)
    assert [saving.load_checkpoint(file)["epoch"] for file in (path, other_name)] == [1, 0]
    saving.remove_checkpoint(path)
    assert os.listdir(tmp_path) == ["other_name.ckpt"]


def test_a_checkpoint_that_cannot_be_pickled_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 0}, path)
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"epoch": lambda: 1}, path)
    assert torch.load(path)["epoch"] == 0 and os.listdir(tmp_path) == ["last.ckpt"]


def test_paths_of_other_file_systems_are_left_to_lightning():
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, "memory://run/last.ckpt")
    assert AtomicCheckpointIO().load_checkpoint("memory://run/last.ckpt")["epoch"] == 3


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers", "ignore:You .*no `.*_dataloader`")
def test_a_trainer_takes_the_plugin(tmp_path):
    trainer = pl.Trainer(
        plugins=[AtomicCheckpointIO()],
        default_root_dir=tmp_path,
        logger=False,
        max_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BoringModel())
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("plugin", [[], ["--trainer.plugins+=pytorch_lightning.plugins.io.AsyncCheckpointIO"]])
def test_the_command_has_it_unless_the_config_has_another(plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = []
    monkeypatch.setattr(AtomicCheckpointIO, "teardown", lambda self: used.append(type(self)))
    assert main(["fit", "--config", "digits-cnn", *QUICK, *plugin]) == 0
    assert bool(used) == (not plugin)
