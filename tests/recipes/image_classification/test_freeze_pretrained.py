"""Pretrained layers that are frozen for the first epochs."""

import copy
import csv
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_adabelief import AdaBelief, BeliefMonitor, ConfiguredAdaBelief
from lightning_adabelief.callbacks import ExactResume
from lightning_adabelief.recipes.image_classification import ImageClassifier, PretrainedNetwork, SmallCNN
from lightning_adabelief.recipes.image_classification.freeze_pretrained import FreezePretrained
from tests.recipes.image_classification.random_images import RandomImages


@pytest.fixture
def weights(tmp_path):
    torch.save(PretrainedNetwork("shufflenet_v2_x0_5", None, 3, 4).body.state_dict(), tmp_path / "x.pt")
    return str(tmp_path / "x.pt")


def configured(params):
    return ConfiguredAdaBelief(params, lr=1e-3, warmup=3, layer_decay=0.8, schedule="cosine")


def make(weights, **options):
    torch.manual_seed(0)
    network = PretrainedNetwork("shufflenet_v2_x0_5", weights)
    return ImageClassifier(network, **{"optimizer": configured, "freeze_epochs": 2} | options)


def fit(module, tmp_path, *callbacks, ckpt_path=None, **options):
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3, "logger": False, "enable_checkpointing": False} | options,
    )
    trainer.fit(module, RandomImages(), ckpt_path=ckpt_path)
    return trainer


class Recorder(pl.Callback):
    """The network's state at the end of each epoch."""

    def __init__(self):
        self.states = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(copy.deepcopy(pl_module.network.body.state_dict()))


def test_frozen_layers_stay_with_their_statistics_and_count_their_own_steps(weights, tmp_path):
    recorder = Recorder()
    trainer = fit(make(weights), tmp_path, recorder)
    loaded = torch.load(weights)
    first, second, third = recorder.states
    backbone = [name for name in loaded if not name.startswith("fc.")]
    assert all(torch.equal(state[name], loaded[name]) for state in (first, second) for name in backbone)
    assert not torch.equal(first["fc.weight"], second["fc.weight"])
    assert not any(torch.equal(third[name], loaded[name]) for name in backbone)
    body, state = trainer.lightning_module.network.body, trainer.optimizers[0].state
    assert state[body.fc.weight]["step"] == 6
    assert state[body.conv1[0].weight]["step"] == 2, "its warmup began with the third epoch"
    assert all(param.requires_grad for param in body.parameters())
    assert all(layer.training for layer in body.modules())
    trainer.test(trainer.lightning_module, RandomImages(), verbose=False)
    assert sum(isinstance(callback, FreezePretrained) for callback in trainer.callbacks) == 1


def test_the_head_has_the_full_rate_and_each_layer_below_a_smaller_one(weights, tmp_path):
    trainer = fit(make(weights), tmp_path, max_steps=1, limit_val_batches=0)
    body = trainer.lightning_module.network.body
    rates = {
        id(param): group["initial_lr"] for group in trainer.optimizers[0].param_groups for param in group["params"]
    }
    order = [body.fc, body.stage4[3], body.stage4[0], body.stage3[0], body.stage2[3], body.stage2[0], body.conv1]
    of_layers = [{rates[id(param)] for param in layer.parameters()} for layer in order]
    assert of_layers[0] == {1e-3}
    assert all(min(above) > max(below) for above, below in zip(of_layers, of_layers[1:], strict=False))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_a_run_resumed_within_or_after_the_frozen_epochs_is_the_same(weights, tmp_path):
    """Amid the first epoch, after it, and amid the third."""
    options = {"optimizer": lambda params: AdaBelief(params, lr=1e-3, warmup=3)}
    checkpoints = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(make(weights, **options), tmp_path, ExactResume(), checkpoints, enable_checkpointing=True)
    for step in (1, 2, 5):
        checkpoint = tmp_path / f"step={step}.ckpt"
        resumed = fit(make(weights, **options), tmp_path, ExactResume(), ckpt_path=checkpoint)
        assert resumed.global_step == 6
        state = resumed.lightning_module.network.state_dict()
        for name, value in whole.lightning_module.network.state_dict().items():
            assert torch.equal(state[name], value), f"{name}, resumed at step {step}"


def test_the_monitor_measures_the_layers_that_train(weights, tmp_path):
    trainer = fit(
        make(weights),
        tmp_path,
        BeliefMonitor(every_n_steps=1, include="*"),
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
    )
    trainer.logger.save()
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["belief/s_t/model"]]
    steps = {
        name: [int(row["step"]) for row in rows if row[f"belief/s_t/{name}"]]
        for name in ("network.body.fc.weight", "network.body.conv1.0.weight")
    }
    assert steps == {"network.body.fc.weight": [0, 1, 2, 3, 4, 5], "network.body.conv1.0.weight": [4, 5]}
    of_all = [float(row["belief/grad_momentum_cosine/model"]) for row in rows[1:]]
    assert all(math.isfinite(value) for value in of_all), "though the backbone has no momentum at its first step"


def test_with_random_weights_nothing_is_frozen(tmp_path):
    trainer = fit(make(None, freeze_epochs=1), tmp_path, max_epochs=1, limit_val_batches=0)
    assert trainer.optimizers[0].state[trainer.lightning_module.network.body.conv1[0].weight]["step"] == 2


def test_it_stops_before_training_where_it_cant_work(weights, tmp_path):
    with pytest.raises(ValueError, match="Invalid freeze_epochs: -1"):
        make(weights, freeze_epochs=-1)
    with pytest.raises(ValueError, match="freeze_epochs 2: SmallCNN has no pretrained_layers. Give"):
        fit(ImageClassifier(SmallCNN(), freeze_epochs=2), tmp_path)


@pytest.mark.filterwarnings("ignore:find_unused_parameters=True was specified")
def test_of_several_processes_all_must_know_which_weights_have_no_gradient(weights, tmp_path):
    with pytest.raises(ValueError, match="freeze_epochs 2: DDPStrategy needs .* ddp_find_unused_parameters_true, or"):
        fit(make(weights), tmp_path, strategy="ddp", devices=1)
    trainer = fit(make(weights), tmp_path, strategy="ddp_find_unused_parameters_true", devices=1)
    assert trainer.optimizers[0].state[trainer.lightning_module.network.body.conv1[0].weight]["step"] == 2
