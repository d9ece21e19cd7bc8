"""``adabelief fit --ckpt_path``, as a user types it."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from lightning_adabelief.cli.main import main
from tests.checkpoints import assert_equal

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
RUN = ["fit", "--config", "digits-cnn", "--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"]
LAST = "logs/digits-cnn/{}/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(caplog):
    lines = [record.message for record in caplog.records if record.message.startswith("ckpt_path")]
    caplog.clear()
    return lines


def fit(*words, version, epochs, resumed=None):
    words = [*RUN, *words, f"--trainer.max_epochs={epochs}", f"--trainer.logger.version={version}"]
    assert main([*words, *([f"--ckpt_path={LAST.format(resumed)}"] if resumed else [])]) == 0
    return torch.load(LAST.format(version), weights_only=True)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(accumulate, caplog):
    how = [
        "--model.optimizer.warmup=0.5",
        "--model.optimizer.total_steps=12",
        f"--trainer.accumulate_grad_batches={accumulate}",
    ]
    whole = fit(*how, version="whole", epochs=4)
    fit(*how, version="begun", epochs=2)
    resumed = fit(*how, version="resumed", epochs=4, resumed="begun")
    assert said(caplog) == []
    assert whole["global_step"] == resumed["global_step"] == 16 // accumulate
    for name, expected in whole["state_dict"].items():
        if name.startswith("network"):
            assert torch.equal(expected, resumed["state_dict"][name]), name
    states = [checkpoint["optimizer_states"][0] for checkpoint in (whole, resumed)]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=0, atol=0)
    assert states[0]["param_groups"] == states[1]["param_groups"]


def test_what_the_config_has_otherwise_than_the_checkpoint_is_said(caplog):
    fit("--model.optimizer.warmup=0.5", version="begun", epochs=1)
    changed = ["--model.optimizer.lr=1e-2", "--model.optimizer.eps=1e-8", "--model.lr_scheduler.T_max=9"]
    resumed = fit("--model.optimizer.warmup=0.5", *changed, version="resumed", epochs=2, resumed="begun")
    assert said(caplog) == [
        f"ckpt_path: {what} in the config; the checkpoint's is taken"
        for what in (
            "AdaBelief's lr is 0.003 in the checkpoint and 0.01",
            "AdaBelief's eps is 1e-16 in the checkpoint and 1e-08",
            "AdaBelief's total_steps is 4 in the checkpoint and 8",
            "CosineAnnealingLR's T_max is 30 in the checkpoint and 9",
        )
    ]
    (group,) = resumed["optimizer_states"][0]["param_groups"]
    assert (group["initial_lr"], group["eps"], group["total_steps"]) == (0.003, 1e-16, 4)


OWN = """
import torch
from pytorch_lightning.cli import OptimizerCallable
from lightning_adabelief import AdaBelief
from lightning_adabelief.recipes.image_classification import ImageClassifier

class Remembering(ImageClassifier):
    def __init__(self, width: int = 8, optimizer: OptimizerCallable = AdaBelief):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))
        super().__init__(network, optimizer=optimizer)
        self.save_hyperparameters()
"""


@pytest.fixture
def own_module():
    Path("own_resumed.py").write_text(OWN)
    optimizer = ["--model.optimizer=lightning_adabelief.AdaBelief", "--model.optimizer.warmup=0"]
    yield ["--model=own_resumed.Remembering", *optimizer]
    sys.modules.pop("own_resumed", None)


def test_hyperparameters_in_a_checkpoint_change_nothing_of_what_is_typed(own_module, caplog):
    begun = ["--model.width=8", "--model.optimizer.lr=1e-3"]
    fit(*own_module, *begun, version="begun", epochs=1)
    assert said(caplog) == []
    changed = ["--model.width=8", "--model.optimizer.lr=1e-2"]
    fit(*own_module, *changed, version="resumed", epochs=2, resumed="begun")
    assert said(caplog) == [
        "ckpt_path: AdaBelief's lr is 0.001 in the checkpoint and 0.01 in the config; the checkpoint's is taken"
    ]


def test_another_network_than_the_checkpoints_is_refused_though_it_holds_its_own_size(own_module, capsys):
    fit(*own_module, "--model.width=8", version="begun", epochs=1)
    resumed = [*own_module, "--model.width=9", "--trainer.max_epochs=2", f"--ckpt_path={LAST.format('begun')}"]
    assert main([*RUN, *resumed]) == 1
    assert "is of another network than the config's: network.1.weight" in capsys.readouterr().err


def test_a_changed_config_is_taken_though_the_checkpoint_knows_the_former():
    fit(version="begun", epochs=1)
    resumed = fit("--model.label_smoothing=0.1", version="resumed", epochs=2, resumed="begun")
    assert resumed["hyper_parameters"]["label_smoothing"] == 0.1


CRASH = """
import pytorch_lightning as pl

class Crash(pl.Callback):
    def __init__(self, batch: int):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            raise KeyError("crash")
"""


@pytest.fixture
def crash():
    """A callback by which a run ends in the middle of its third epoch."""
    Path("crashing.py").write_text(CRASH)
    yield ["--trainer.callbacks+=crashing.Crash", "--trainer.callbacks.batch=10"]
    sys.modules.pop("crashing", None)


LOGGER = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.name=runs"]
GAN = [
    "--trainer.check_val_every_n_epoch=2",
    "--model.scores.training_steps=3",
    "--model.scores.num_samples=50",
]


def run(recipe, *words):
    words = ["fit", "--config", recipe, "--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1", *words]
    return main([*words, *LOGGER, "--trainer.max_epochs=4", *(GAN if recipe != "digits-cnn" else [])])


def folder(version):
    return Path(f"logs/runs/version_{version}")


@pytest.mark.filterwarnings("ignore:(generator|critic), step")
@pytest.mark.parametrize("recipe", ["digits-cnn", "digits-sngan"])
def test_a_run_goes_on_in_its_folder_and_leaves_the_logs_of_an_uninterrupted_one(recipe, crash, caplog):
    assert run(recipe) == 0
    with pytest.raises(KeyError, match="crash"):
        run(recipe, *crash)
    said(caplog)
    assert run(recipe, f"--ckpt_path={folder(1)}/checkpoints/last.ckpt") == 0
    assert said(caplog) == [f"ckpt_path: the run goes on in {folder(1)}; its logs are cut to the checkpoint"]
    assert sorted(Path("logs/runs").iterdir()) == [folder(0), folder(1)]
    for name in ("metrics.csv", "belief.csv"):
        assert (folder(1) / name).read_text() == (folder(0) / name).read_text()
    for name in ("last", "best"):
        whole, resumed = (
            torch.load(folder(version) / f"checkpoints/{name}.ckpt", weights_only=True) for version in (0, 1)
        )
        for key in ("state_dict", "optimizer_states", "exact_resume"):
            assert_equal(whole[key], resumed[key], key)


def test_an_older_checkpoint_begins_a_run_of_its_own_and_cuts_no_logs(caplog):
    assert run("digits-cnn") == 0
    shutil.copy(folder(0) / "checkpoints/best.ckpt", folder(0) / "checkpoints/last.ckpt")
    logs = (folder(0) / "metrics.csv").read_bytes()
    said(caplog)
    assert run("digits-cnn", f"--ckpt_path={folder(0)}/checkpoints/best.ckpt", "--trainer.max_epochs=5") == 0
    (line,) = [line for line in said(caplog) if "in a new folder" in line]
    assert str(folder(0) / "checkpoints/last.ckpt") in line
    assert (folder(0) / "metrics.csv").read_bytes() == logs
    assert (folder(1) / "metrics.csv").is_file()


@pytest.mark.filterwarnings("ignore:(generator|critic), step")
def test_a_finished_gan_is_resumed_tested_and_validated(caplog):
    assert run("digits-sngan") == 0
    rows = (folder(0) / "metrics.csv").read_text()
    checkpoint = f"--ckpt_path={folder(0)}/checkpoints/last.ckpt"
    assert run("digits-sngan", checkpoint) == 0
    assert (folder(0) / "metrics.csv").read_text() == rows
    for command in ("test", "validate"):
        assert main([command, "--config", "digits-sngan", *GAN[1:], *LOGGER, checkpoint]) == 0
