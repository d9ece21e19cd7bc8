"""LightningCLI's own ``optimizer`` and ``lr_scheduler``, for a module that makes none."""

from pathlib import Path

import pytest
import torch
import yaml

from lightning_adabelief.cli.main import main

CONFIG = """
seed_everything: 1
model: tests.comparison.users_module.TestedRegression
data: tests.comparison.users_module.LineData
optimizer: {class_path: lightning_adabelief.AdaBelief, init_args: {lr: 0.5, warmup: 0.25, rectify: false}}
lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 2}}
trainer: {max_epochs: 3, enable_progress_bar: false, accelerator: cpu, logger: {class_path: CSVLogger, init_args: {
  save_dir: logs, name: own}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(CONFIG)


def read_group(version=0):
    (path,) = Path(f"logs/own/version_{version}/checkpoints").glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=False)
    return checkpoint["optimizer_states"][0]["param_groups"][0]


def test_they_train_the_module_and_a_warmup_is_a_fraction_of_its_run():
    assert main(["fit", "--config=own.yaml"]) == 0
    group = read_group()
    assert group["total_steps"] == 12 and group["lr"] == pytest.approx(0.05), "after two epochs, a tenth"
    assert main(["fit", "--config=logs/own/version_0/config.yaml", "--optimizer=SGD", "--optimizer.lr=0.1"]) == 0
    assert "momentum" in read_group(1)
    assert main(["test", "--config=own.yaml", "--ckpt_path", str(next(Path("logs").rglob("*.ckpt")))]) == 0


def test_they_override_those_of_the_module_which_lightning_warns_of():
    with pytest.warns(UserWarning, match="will be overridden by"):
        model = "--model=tests.comparison.users_module.StubbornRegression"
        assert main(["fit", "--config=own.yaml", model, "--trainer.max_epochs=1"]) == 0
    assert read_group()["lr"] == 0.5


def test_a_short_name_that_the_parser_does_not_know_is_answered_by_a_similar_one(capsys):
    assert main(["fit", "--config=own.yaml", "--optimizer=Adamm"]) == 2
    assert "There is no class Adamm. Did you mean 'Adam'" in capsys.readouterr().err


def test_without_them_they_are_no_options(capsys):
    config = yaml.safe_load(CONFIG)
    del config["optimizer"], config["lr_scheduler"]
    Path("own.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["fit", "--config=own.yaml", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert "optimizer" not in printed and "model" in printed
