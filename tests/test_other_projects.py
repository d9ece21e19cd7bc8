"""Two projects that others wrote, demos in Lightning's own wheel, train with AdaBelief after two changed lines each."""

import inspect
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.demos import transformer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CLI_PROJECT = """
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, DemoModel

if __name__ == "__main__":
    LightningCLI(DemoModel, BoringDataModule)
"""

CLI_CONFIG = """
seed_everything: 0
optimizer:
  class_path: torch.optim.Adam
  init_args: {lr: 0.01}
trainer:
  accelerator: cpu
  max_epochs: 1
  limit_train_batches: 20
  log_every_n_steps: 5
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelSummary
"""

TRAINER_PROJECT = """

if __name__ == "__main__":
    import pytorch_lightning as pl

    pl.seed_everything(0)
    dataset = WikiText2()
    model = LightningTransformer(vocab_size=dataset.vocab_size)
    trainer = pl.Trainer(accelerator="cpu", max_steps=20, log_every_n_steps=5, callbacks=[])
    trainer.fit(model, DataLoader(dataset, batch_size=4))
"""


def change_lines(text, changes):
    """Replace lines, each of which must be there once."""
    for old, new in changes.items():
        assert text.count(old) == 1 and "\n" not in new
        text = text.replace(old, new)
    return text


def run(folder, *words):
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_beliefs_are_those_of_the_checkpoint(folder, layer):
    """Check that the values logged last are those of the optimizer's state, saved after the same step."""
    (log_dir,) = (folder / "lightning_logs").iterdir()
    logged = EventAccumulator(str(log_dir)).Reload()
    events = logged.Scalars(f"belief/s_t/{layer}")
    assert [event.step for event in events] == [4, 9, 14, 19]
    assert {"belief/grad_norm/model", "belief/update_to_weight/model"} <= set(logged.Tags()["scalars"])

    (path,) = log_dir.glob("checkpoints/*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    (optimizer,) = checkpoint["optimizer_states"]
    state = optimizer["state"][list(checkpoint["state_dict"]).index(layer)]  # neither module has buffers
    assert state["step"] == 20
    assert events[-1].value == pytest.approx((state["exp_avg_var"].double().mean() / (1 - 0.999**20)).item(), rel=1e-5)


def test_a_project_of_the_lightning_cli_trains_with_two_lines_of_its_config_changed(tmp_path):
    config = change_lines(
        CLI_CONFIG,
        {
            "class_path: torch.optim.Adam": "class_path: lightning_adabelief.AdaBelief",
            "class_path: lightning.pytorch.callbacks.ModelSummary": (
                "{class_path: lightning_adabelief.BeliefMonitor, init_args: {include: '*'}}"
            ),
        },
    )
    (tmp_path / "main.py").write_text(CLI_PROJECT)
    (tmp_path / "config.yaml").write_text(config)
    run(tmp_path, "main.py", "fit", "--config", "config.yaml")
    assert_beliefs_are_those_of_the_checkpoint(tmp_path, "l1.weight")


def test_a_project_of_the_trainer_trains_with_two_lines_of_its_script_changed(tmp_path):
    script = change_lines(
        inspect.getsource(transformer) + TRAINER_PROJECT,
        {
            "torch.optim.SGD(self.model.parameters(), lr=0.1)": "AdaBelief(self.model.named_parameters(), lr=1e-3)",
            "callbacks=[]": 'callbacks=[BeliefMonitor(include="*")]',
        },
    )
    (tmp_path / "train.py").write_text(f"from lightning_adabelief import AdaBelief, BeliefMonitor\n{script}")
    (tmp_path / "data").mkdir()  # the demo downloads WikiText-2 unless its file is there
    text = "\n".join(pydoc_data.topics.topics[name] for name in ("assignment", "function", "yield"))
    (tmp_path / "data" / "wikitext-2.txt").write_text(text, encoding="utf8")
    run(tmp_path, "train.py")
    assert_beliefs_are_those_of_the_checkpoint(tmp_path, "model.decoder.weight")
