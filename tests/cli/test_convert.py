"""``adabelief convert``: a config's Adam becomes AdaBelief, and all else stays to the letter."""

from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningCLI, OptimizerCallable
from pytorch_lightning.demos.boring_classes import BoringDataModule, BoringModel

from lightning_adabelief import AdaBelief
from lightning_adabelief.cli.adam_blocks import replace_adams
from lightning_adabelief.cli.main import main

PLAIN = """\
# my run
trainer:
  max_epochs: 1 # short
  limit_train_batches: 3
  limit_val_batches: 0
  logger: false
  enable_checkpointing: false

optimizer:
  class_path: torch.optim.AdamW # as everyone
  init_args:
    lr: 1.0e-3
    weight_decay: 0.05  # tuned
    # betas: left as they are
"""

GAN = """\
trainer: {fast_dev_run: true, logger: false}
model:
  class_path: tests.cli.test_convert.TwoOptimizers
  init_args:
    first:
      class_path: torch.optim.Adam
      init_args: {lr: 2.0e-4, betas: [0.5, 0.9]} # the paper's
    second:
      init_args:
        lr: 1.0e-4
        betas:
          - 0.0
          - 0.9

      # the class below its options
      class_path: torch.optim.RAdam
data: pytorch_lightning.demos.boring_classes.BoringDataModule
"""


class WithoutOptimizer(LightningModule):
    """Leaves the optimizer to the LightningCLI."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(32, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).square().mean())


class TwoOptimizers(BoringModel):
    def __init__(self, first: OptimizerCallable = AdaBelief, second: OptimizerCallable = AdaBelief):
        super().__init__()
        self.automatic_optimization = False
        self.makers = first, second

    def configure_optimizers(self):
        return [make(self.parameters()) for make in self.makers]

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self(batch).square().mean())
            optimizer.step()

    def on_train_epoch_end(self):
        pass


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])  # LightningCLI warns of both arguments and a command line


def train(config, *classes, **options):
    cli = LightningCLI(
        *classes, args=["fit", "--config", config], save_config_callback=None, seed_everything_default=0, **options
    )
    return cli.trainer.optimizers


def test_the_converted_config_of_a_plain_lightning_cli_trains_and_only_its_optimizer_changed(capsys):
    Path("adamw.yaml").write_text(PLAIN)
    assert main(["convert", "adamw.yaml", "adabelief.yaml"]) == 0
    out = capsys.readouterr().out
    assert Path("adabelief.yaml").read_text() == PLAIN.replace(
        "torch.optim.AdamW", "lightning_adabelief.AdaBelief"
    ).replace(
        "    weight_decay: 0.05  # tuned\n",
        "    weight_decay: 0.05  # tuned\n    eps: 1.0e-19\n    weight_decouple: true\n    rectify: false\n",
    )
    assert "--- adamw.yaml\n+++ adabelief.yaml\n" in out and out.endswith("Wrote adabelief.yaml\n")
    assert "-  class_path: torch.optim.AdamW # as everyone\n" in out and "+    eps: 1.0e-19\n" in out
    (optimizer,) = train("adabelief.yaml", WithoutOptimizer, BoringDataModule)
    (group,) = optimizer.param_groups
    assert type(optimizer) is AdaBelief and optimizer.state
    assert (group["lr"], group["eps"], group["weight_decay"], group["rectify"]) == (1e-3, 1e-19, 0.05, False)


def test_both_optimizers_of_a_gan_are_converted_and_train(capsys):
    Path("gan.yaml").write_text(GAN)
    assert main(["convert", "gan.yaml", "--in-place"]) == 0
    first, second = (
        optimizer.param_groups[0] for optimizer in train("gan.yaml", subclass_mode_model=True, subclass_mode_data=True)
    )
    assert (first["lr"], first["betas"], first["rectify"], first["residual"]) == (2e-4, (0.5, 0.9), False, "updated")
    assert (second["lr"], second["betas"], second["rectify"], second["residual"]) == (
        1e-4,
        (0.0, 0.9),
        True,
        "previous",
    )
    changed = [
        line[1:].strip() for line in capsys.readouterr().out.splitlines() if line[:1] == "-" and line[:2] != "--"
    ]
    assert changed == [
        "class_path: torch.optim.Adam",
        "init_args: {lr: 2.0e-4, betas: [0.5, 0.9]} # the paper's",
        "class_path: torch.optim.RAdam",
    ]


OPTIMIZERS = [
    "class_path: torch.optim.Adam",
    "class_path: Adam\ninit_args:",
    "class_path: torch.optim.adam.Adam\ninit_args: {}",
    "{class_path: torch.optim.RAdam}",
    "{class_path: torch.optim.RAdam, init_args: {}}",
    "init_args:\n    eps: 0.001\n    lr: 0.5\nclass_path: torch.optim.AdamW",
    "class_path: torch.optim.AdamW\ninit_args:\n  weight_decay: 1e-2\n  amsgrad: true\n  maximize: true",
    "class_path: torch.optim.AdamW\ninit_args:\n  betas: [0.5, 0.9]  # a comment\n  foreach: true\n",
    "{'class_path': 'torch.optim.Adam', 'init_args': {'eps': 1e-4, 'betas': [0.0, 0.5]}}",
    "class_path: torch.optim.RAdam\ninit_args:\n  decoupled_weight_decay: true\n  weight_decay: 0.1",
    "class_path: torch.optim.RAdam\ninit_args: {decoupled_weight_decay: false, weight_decay: 0.1}",
]


@pytest.mark.parametrize("match_noise", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_result_is_what_adabelief_like_makes_of_that_adam(optimizer, match_noise):
    text = "before: 1\noptimizer:\n" + "".join(f"  {line}\n" for line in optimizer.splitlines()) + "after: 2 # last\n"
    converted = replace_adams(text, match_noise)
    old, new = (yaml.safe_load(t.replace("1e-", "1.0e-").replace("1.0.0e", "1.0e")) for t in (text, converted))
    assert (new["before"], new["after"]) == (1, 2) and converted.endswith("after: 2 # last\n")
    assert new["optimizer"]["class_path"] == "lightning_adabelief.AdaBelief"
    params = [torch.nn.Parameter(torch.ones(1))]
    adam = getattr(torch.optim, old["optimizer"]["class_path"].split(".")[-1])
    like = AdaBelief.like(adam(params, **old["optimizer"].get("init_args") or {}), match_noise).param_groups[0]
    made = AdaBelief(params, **new["optimizer"]["init_args"]).param_groups[0]
    assert made.keys() == like.keys()
    for name in made.keys() - {"params", "betas"}:
        assert made[name] == (pytest.approx(like[name], rel=1e-5) if type(like[name]) is float else like[name]), name
    assert tuple(made["betas"]) == tuple(like["betas"])


def test_an_alias_is_converted_once_and_other_classes_are_left_alone():
    text = (
        "a: &adam\n  class_path: torch.optim.Adam\nb: *adam\n"
        "c:\n  class_path: torch.optim.SGD\n  init_args: {lr: 0.1}\nd: torch.optim.Adam is a name in a text\n"
    )
    converted = yaml.safe_load(replace_adams(text))
    assert converted["a"] == converted["b"] and converted["a"]["init_args"]["eps"] == 1e-19
    assert (
        converted["c"]["class_path"] == "torch.optim.SGD" and converted["d"] == "torch.optim.Adam is a name in a text"
    )


def test_line_endings_and_a_last_line_without_one_stay(capsys):
    Path("windows.yaml").write_bytes(b"optimizer:\r\n  class_path: torch.optim.Adam\r\nx: 1")
    assert main(["convert", "windows.yaml", "--in-place"]) == 0
    written = Path("windows.yaml").read_bytes()
    assert written.endswith(b"\r\nx: 1") and written.count(b"\n") == written.count(b"\r\n") == 6


def test_without_a_destination_nothing_is_written(capsys):
    Path("adamw.yaml").write_text(PLAIN)
    assert main(["convert", "adamw.yaml", "--match-noise"]) == 0
    out = capsys.readouterr().out
    assert "+    lr: 0.000923381\n" in out and "+    weight_decay: 0.0541489  # tuned\n" in out
    assert "Wrote" not in out and list(Path().iterdir()) == [Path("adamw.yaml")]
    assert Path("adamw.yaml").read_text() == PLAIN


def failure(capsys, *words):
    status = main(["convert", *words])
    return status, capsys.readouterr().err


def test_what_cannot_be_done_is_told_and_leaves_all_as_it_is(capsys):
    Path("adamw.yaml").write_text(PLAIN)
    Path("other.yaml").write_text("x: 1\n")
    assert failure(capsys, "adamw.yaml", "other.yaml") == (
        1,
        "error: other.yaml exists, and is left as it is. Give another name, or --in-place to change adamw.yaml\n",
    )
    assert "There is no folder nowhere to write a.yaml into" in failure(capsys, "adamw.yaml", "nowhere/a.yaml")[1]
    assert failure(capsys, "other.yaml", "new.yaml") == (
        2,
        "error: other.yaml has no optimizer to convert: no class_path is torch.optim.Adam, torch.optim.AdamW or "
        "torch.optim.RAdam\n",
    )
    assert "--in-place changes adamw.yaml itself" in failure(capsys, "adamw.yaml", "new.yaml", "--in-place")[1]
    assert "No such file" in failure(capsys, "missing.yaml")[1]
    Path("interpolated.yaml").write_text("optimizer:\n  class_path: torch.optim.Adam\n  init_args: {eps: '${eps}'}\n")
    assert "The eps of Adam, '${eps}', is not a number" in failure(capsys, "interpolated.yaml")[1]
    Path("merged.yaml").write_text("a: &a {lr: 1}\no:\n  class_path: torch.optim.Adam\n  init_args: {<<: *a}\n")
    assert "merge others (<<)" in failure(capsys, "merged.yaml")[1]
    assert Path("adamw.yaml").read_text() == PLAIN and not Path("new.yaml").exists()


def test_the_name_of_an_adam_alone_is_converted_under_a_key_for_an_optimizer():
    text = "model: {name: Adam}\noptimizer: torch.optim.Adam  # as it was\ncritic_optimizer: RAdam\n"
    converted = yaml.safe_load(replace_adams(text))
    assert converted["model"] == {"name": "Adam"}
    for key, rectify in (("optimizer", False), ("critic_optimizer", True)):
        assert converted[key]["class_path"] == "lightning_adabelief.AdaBelief"
        assert converted[key]["init_args"]["rectify"] is rectify
    assert "# as it was" in replace_adams(text)
