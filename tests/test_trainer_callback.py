"""The callback that the installed package adds to every Trainer, in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = ["pytorch_lightning", "lightning.pytorch"]

MAIN = """
import torch
import {tree} as pl
from {tree}.cli import LightningCLI, OptimizerCallable

class Plain(pl.LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.LayerNorm(width), torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=4)

class OfCallable(Plain):
    def __init__(self, optimizer: OptimizerCallable):
        super().__init__()
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())

if __name__ == "__main__":
    cli = LightningCLI(subclass_mode_model=True)
    optimizer = cli.trainer.optimizers[0]
    print("groups", [
        (group.get("name"), len(group["params"]), group["warmup"], group["total_steps"], round(group["lr"], 12),
         max(int(optimizer.state[param]["step"]) for param in group["params"]))
        for group in optimizer.param_groups
    ])
"""

QUIET = [f"--trainer.{option}=false" for option in ("logger", "enable_checkpointing", "enable_progress_bar")]


def install_entry_points(folder):
    """Put the package's metadata, as pip would, where a process with this folder on its path finds them."""
    info = folder / "lightning_adabelief-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-adabelief\nVersion: 0\n")
    declared = re.findall(r'\[project.entry-points."(.*)"\]\n(.*) = "(.*)"', (ROOT / "pyproject.toml").read_text())
    assert {group for group, _, _ in declared} == {f"{tree}.callbacks_factory" for tree in TREES}
    lines = [f"[{group}]\n{name} = {function}\n" for group, name, function in declared]
    (info / "entry_points.txt").write_text("\n".join(lines))


def run(folder, *words):
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def fit(folder, tree, *words):
    install_entry_points(folder)
    (folder / "main.py").write_text(MAIN.format(tree=tree))
    done = run(folder, "main.py", "fit", *QUIET, "--trainer.max_epochs=3", "--trainer.accelerator=cpu", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("groups")]
    return line, done.stdout + done.stderr


OPTIMIZER = "lightning_adabelief.ConfiguredAdaBelief"


@pytest.mark.parametrize("tree", TREES)
def test_a_plain_cli_has_all_of_configure_adabelief(tree, tmp_path):
    options = ["warmup=0.5", "weight_decay=0.01", "schedule=cosine", 'layers={"net.2.*": {"lr": 0.01}}']
    words = ["--model=main.Plain", f"--optimizer={OPTIMIZER}", *(f"--optimizer.{option}" for option in options)]
    line, _ = fit(tmp_path, tree, *words)
    assert line == (
        "groups [('decayed', 1, 0.5, 18, 0.0, 18), ('undecayed', 3, 0.5, 18, 0.0, 18), "
        "('net.2/decayed', 1, 0.5, 18, 0.0, 18), ('net.2/undecayed', 1, 0.5, 18, 0.0, 18)]"
    )


@pytest.mark.parametrize("tree", TREES)
def test_a_module_that_takes_a_callable_has_it_from_yaml(tree, tmp_path):
    (tmp_path / "given.yaml").write_text(
        f"model: {{class_path: main.OfCallable, init_args: {{optimizer: {{class_path: {OPTIMIZER}, init_args: "
        "{warmup: 0.5, weight_decay: 0.01, schedule: linear}}}}\n"
    )
    line, _ = fit(tmp_path, tree, "--config=given.yaml")
    assert line == "groups [('decayed', 2, 0.5, 18, 0.0, 18), ('undecayed', 4, 0.5, 18, 0.0, 18)]"


NOTHING = """
import sys
import {tree} as pl
trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
assert not any("AdaBelief" in type(callback).__name__ for callback in trainer.callbacks)
ours = [name for name in sys.modules if name.startswith("lightning_adabelief")]
assert ours == ["lightning_adabelief", "lightning_adabelief.trainer_callback"], ours
"""

PICKLED = """
import pickle
from lightning_adabelief import AdaBelief
AdaBelief
import {tree} as pl
trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
(callback,) = [callback for callback in trainer.callbacks if type(callback).__name__ == "AdaBeliefInTrainer"]
assert type(pickle.loads(pickle.dumps(callback))) is type(callback) and isinstance(callback, pl.Callback)
assert callback.state_dict() == {{}}
"""


@pytest.mark.parametrize("tree", TREES)
def test_without_adabelief_a_trainer_imports_and_says_nothing_of_it(tree, tmp_path):
    install_entry_points(tmp_path)
    done = run(tmp_path, "-c", NOTHING.format(tree=tree))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "adabelief" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("tree", TREES)
def test_the_callback_is_of_the_trainers_tree_can_be_pickled_and_keeps_no_state(tree, tmp_path):
    install_entry_points(tmp_path)
    done = run(tmp_path, "-c", PICKLED.format(tree=tree))
    assert done.returncode == 0, done.stderr[-3000:]


SEARCH = """
import torch
import {tree} as pl
from {tree}.tuner import Tuner
from lightning_adabelief import AdaBelief
from main import Plain

class Searched(Plain):
    lr = 1e-3
    def configure_optimizers(self):
        return AdaBelief(self.parameters(), warmup=500)

trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=50)
Tuner(trainer).lr_find(Searched(), update_attr=False)
assert trainer.optimizers[0].param_groups[0]["warmup"] == 500
"""


@pytest.mark.parametrize("tree", TREES[:1])
def test_a_search_with_a_plain_adabelief_tries_the_rate_that_acts(tree, tmp_path):
    install_entry_points(tmp_path)
    (tmp_path / "main.py").write_text(MAIN.format(tree=tree))
    done = run(tmp_path, "-c", SEARCH.format(tree=tree))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("the rate tried is the rate that acts") == 1


@pytest.mark.parametrize("tree", TREES)
def test_a_plain_cli_with_adabelief_knows_the_length_of_the_run(tree, tmp_path):
    words = ["--model=main.Plain", "--optimizer=lightning_adabelief.AdaBelief", "--optimizer.warmup=0.5"]
    line, said = fit(tmp_path, tree, *words)
    assert line == "groups [(None, 6, 0.5, 18, 0.001, 18)]"
    assert "laid over" not in said
