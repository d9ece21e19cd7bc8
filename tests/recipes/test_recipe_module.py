"""Modules of the recipes are made again from their checkpoints."""

import functools
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
import yaml

from lightning_adabelief import AdaBelief
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.gan import GAN
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN
from lightning_adabelief.recipes.language_modeling import LanguageModel
from lightning_adabelief.recipes.object_detection import ObjectDetector
from tests.checkpoints import WEIGHTS_ONLY

SHORT = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=0",
    "--trainer.limit_test_batches=1",
    "--trainer.callbacks=null",
    "--trainer.enable_progress_bar=false",
    "--trainer.logger=CSVLogger",
    "--trainer.logger.save_dir=logs",
    "--trainer.check_val_every_n_epoch=1",
]
RECIPES = {
    "digits-cnn": (ImageClassifier, ["--model.network.width=4", "--model.label_smoothing=0.1"]),
    "digits-sngan": (GAN, ["--model.scores=null", "--model.generator.width=4", "--model.critic.width=4"]),
    "pydocs-lstm": (LanguageModel, ["--model.network.embedding_size=8", "--model.network.hidden_size=8"]),
    "scenes-fasterrcnn": (ObjectDetector, ["--model.network.width=8", "--data.batch_size=2"]),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_of_a_config_leaves_a_checkpoint_that_is_loaded_without_its_networks(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, words = RECIPES[recipe]
    assert main(["fit", "--config", recipe, *SHORT, *words]) == 0
    (path,) = tmp_path.glob("logs/**/*.ckpt")
    loaded = kind.load_from_checkpoint(path, **WEIGHTS_ONLY)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())
    for file in tmp_path.glob("logs/**/hparams.yaml"):
        assert yaml.safe_load(file.read_text()) == {}, "loggers are given no hyperparameters"


def save(module, path):
    """Train a classifier of digits for a step in Python, and save its checkpoint."""
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False, logger=False, **options)
    trainer.fit(module, DigitsDataModule())
    trainer.save_checkpoint(path)


def test_of_a_module_made_in_python_the_network_is_asked_for_and_the_rest_is_known(tmp_path):
    optimizer = functools.partial(AdaBelief, lr=0.25, betas=(0.5, 0.9))
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    module = ImageClassifier(SmallCNN(width=4), optimizer=optimizer, lr_scheduler=schedule, label_smoothing=0.1)
    save(module, tmp_path / "saved.ckpt")
    with pytest.raises(ValueError, match="does not tell the network, .*load_from_checkpoint\\(PATH, network=..."):
        ImageClassifier.load_from_checkpoint(tmp_path / "saved.ckpt")
    network = SmallCNN(width=4)
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "saved.ckpt", network=network, channels_last=True)
    assert loaded.network is network and loaded.training_loss.label_smoothing == 0.1
    assert loaded.channels_last and not module.channels_last, "an argument goes before the checkpoint's"
    made = loaded.configure_optimizers()
    assert made["optimizer"].defaults["lr"] == 0.25 and made["lr_scheduler"]["scheduler"].step_size == 3


class Own(ImageClassifier):
    """A user's, with a constructor of its own, whose arguments mean other things."""

    def __init__(self, width=4, optimizer="adam"):
        super().__init__(SmallCNN(width=width), label_smoothing=0.1)
        self.name = optimizer


class Saving(Own):
    """One that saves its own hyperparameters."""

    def __init__(self, width=4):
        super().__init__(width)
        self.save_hyperparameters()


@pytest.mark.parametrize(("module", "kept"), [(Own(5), None), (Saving(5), {"width": 5})], ids=["own", "saving"])
def test_a_subclass_decides_for_itself_what_its_checkpoints_hold(module, kept, tmp_path):
    save(module, tmp_path / "saved.ckpt")
    assert torch.load(tmp_path / "saved.ckpt", weights_only=True).get("hyper_parameters") == kept
    loaded = type(module).load_from_checkpoint(tmp_path / "saved.ckpt", width=5)
    assert loaded.name == "adam" and loaded.network.width == 5


def test_what_only_this_program_has_is_left_out_of_the_checkpoint(tmp_path):
    class Local(torch.optim.SGD):
        pass

    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0)
    save(ImageClassifier(SmallCNN(width=4), optimizer=Local, lr_scheduler=schedule), tmp_path / "saved.ckpt")
    kept = torch.load(tmp_path / "saved.ckpt", weights_only=True)["hyper_parameters"]
    assert "optimizer" not in kept and "lr_scheduler" not in kept and kept["mixup"] == 0.0


def test_an_older_checkpoint_without_hyperparameters_is_loaded_with_the_network(tmp_path):
    module = ImageClassifier(SmallCNN(width=4))
    module._kept_hyperparameters = None
    save(module, tmp_path / "old.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "old.ckpt", network=SmallCNN(width=4))
    assert torch.equal(loaded.network.classifier.weight, module.network.classifier.weight)


@pytest.mark.slow
def test_a_checkpoint_of_one_of_lightnings_packages_is_loaded_under_the_other(tmp_path):
    save(ImageClassifier(SmallCNN(width=4), optimizer=AdaBelief), tmp_path / "saved.ckpt")
    code = (
        "import lightning.pytorch; from lightning_adabelief.recipes.image_classification import *; "
        f"ImageClassifier.load_from_checkpoint({str(tmp_path / 'saved.ckpt')!r}, network=SmallCNN(width=4))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
