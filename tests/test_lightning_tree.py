"""Both of Lightning's class trees are served; each case in a process of its own, for a process has one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STYLES = {
    "pytorch_lightning": "import pytorch_lightning as pl",
    "lightning": "import lightning as pl",
    "lightning.pytorch": "import lightning.pytorch as pl",
}

MODULE = """
import torch

class Transformer(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 8)
        layer = torch.nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.head = torch.nn.Linear(8, 11)

    def training_step(self, batch, batch_idx):
        tokens = batch[0]
        logits = self.head(self.encoder(self.embedding(tokens[:, :-1])))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def configure_optimizers(self):
        from lightning_adabelief import configure_adabelief

        return configure_adabelief(self, lr=1e-2, weight_decay=0.1, warmup=0.2, schedule="cosine")

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        tokens = torch.arange(24 * 6).reshape(24, 6) % 11
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tokens), batch_size=4)
"""

QUIET = "accelerator='cpu', enable_progress_bar=False, enable_model_summary=False, default_root_dir='.'"

OWN_MODULE = f"""
{MODULE}
from lightning_adabelief import BeliefMonitor

trainer = pl.Trainer(max_epochs=2, log_every_n_steps=1, callbacks=[BeliefMonitor()], {QUIET})
trainer.fit(Transformer(), Data())
assert trainer.global_step == 12 and trainer.optimizers[0].param_groups[0]["total_steps"] == 12
assert any(name.startswith("belief/s_t/") for name in trainer.callback_metrics)
"""

RECIPES_MODULE = f"""
from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN

module = ImageClassifier(SmallCNN(width=2), optimizer=lambda params: AdaBelief(params, warmup=0.5))
assert isinstance(module, pl.LightningModule)
trainer = pl.Trainer(max_epochs=1, limit_train_batches=3, log_every_n_steps=1, callbacks=[BeliefMonitor()], {QUIET})
trainer.fit(module, DigitsDataModule())
assert trainer.global_step == 3 and trainer.optimizers[0].param_groups[0]["total_steps"] == 3
assert {{"val/accuracy", "belief/s_t/model"}} <= trainer.callback_metrics.keys()
"""

LIGHTNING_CLI = """
from importlib import import_module
from pathlib import Path

import lightning_adabelief
from lightning_adabelief.recipes.catalog import find
LightningCLI = import_module(pl.Trainer.__module__.rpartition(".trainer.")[0] + ".cli").LightningCLI

cli = LightningCLI(
    pl.LightningModule, pl.LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
    auto_configure_optimizers=False,
    args=["fit", "--config", str(find("digits-cnn").path), "--trainer.fast_dev_run=true", "--trainer.logger=CSVLogger",
          "--trainer.logger.save_dir=csv"],
)
assert type(cli.trainer.optimizers[0]) is lightning_adabelief.AdaBelief
"""

OWN_DATA = """
import lightning.pytorch as pl
from lightning_adabelief.recipes.image_classification import DigitsDataModule

class Data(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.digits = DigitsDataModule()

    def setup(self, stage):
        self.digits.setup(stage)

    def train_dataloader(self):
        return self.digits.train_dataloader()

    def val_dataloader(self):
        return self.digits.val_dataloader()
"""

CONFIGURE_FIRST = f"""
from lightning_adabelief import configure_adabelief
import lightning.pytorch as pl
from lightning.pytorch.callbacks import GradientAccumulationScheduler
import pytest
{MODULE}
def trainer(**options):
    return pl.Trainer(logger=False, enable_checkpointing=False, {QUIET}, **options)

accumulating = trainer(max_epochs=2, callbacks=[GradientAccumulationScheduler({{0: 1, 1: 2}})])
accumulating.fit(Transformer(), Data())
assert accumulating.optimizers[0].param_groups[0]["total_steps"] == accumulating.global_step == 9
with pytest.raises(ValueError, match="max_time alone"):
    trainer(max_time="00:00:00:05").fit(Transformer(), Data())
"""

OPTIMIZER_FIRST = """
import sys
from lightning_adabelief import AdaBelief
assert not {"lightning", "pytorch_lightning"} & set(sys.modules)
"""


def run(words, folder):
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning"])
def test_modules_callbacks_and_configs_work_in_either_tree(tree, tmp_path):
    run(["-c", "\n".join([STYLES[tree], OWN_MODULE, RECIPES_MODULE, LIGHTNING_CLI, only(tree)])], tmp_path)


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_the_optimizer_may_be_imported_before_lightning(tree, tmp_path):
    run(["-c", "\n".join([OPTIMIZER_FIRST, STYLES[tree], OWN_MODULE, only(tree)])], tmp_path)


def test_callbacks_of_the_other_tree_are_known_too(tmp_path):
    run(["-c", CONFIGURE_FIRST], tmp_path)


def only(tree):
    other = "lightning" if tree == "pytorch_lightning" else "pytorch_lightning"
    return f"import sys; assert {other!r} not in sys.modules, 'both trees are here'"


def test_the_command_takes_the_tree_of_the_users_own_data(tmp_path):
    (tmp_path / "own.py").write_text(OWN_DATA)
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
    command = ["-m", "lightning_adabelief", "fit", "--config", "digits-cnn", "--data=own.Data", *quick]
    assert "network.block" in run(command, tmp_path)


def test_the_command_takes_the_tree_of_the_users_own_module(tmp_path):
    (tmp_path / "own.py").write_text(f"import lightning as pl\n{MODULE}")
    (tmp_path / "own.yaml").write_text(
        "model: own.Transformer\ndata: {class_path: own.Data}\ntrainer: {max_epochs: 1, callbacks: "
        "[{class_path: lightning_adabelief.BeliefMonitor, init_args: {every_n_steps: 1}}]}\n"
    )
    assert "encoder.layers" in run(["-m", "lightning_adabelief", "fit", "--config", "own.yaml"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imports", "tree"),
    [
        ("import pytorch_lightning, lightning", "pytorch_lightning"),
        ("import lightning, pytorch_lightning", "lightning.pytorch"),
    ],
)
def test_where_both_are_imported_the_first_is_taken(imports, tree, tmp_path):
    found = run(["-c", f"{imports}\nfrom lightning_adabelief.lightning_tree import tree; print(tree())"], tmp_path)
    assert found.strip() == tree
