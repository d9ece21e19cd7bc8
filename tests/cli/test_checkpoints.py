"""Evaluation without a checkpoint is refused, and the newest checkpoint that fits is named."""

import os
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adabelief.cli.checkpoints import MissingCheckpointError, find_newest, require_checkpoint
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find
from lightning_adabelief.settings import read_settings

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_run(folder, *names, written, config="digits-cnn", **network):
    """Write a run's checkpoints, as old as told, and its config."""
    content = yaml.safe_load(find(config).path.read_text())
    content["model"]["init_args"].get("network", {}).get("init_args", {}).update(network)
    paths = [Path(folder, "checkpoints", name) for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {}}, path)
        os.utime(path, (written, written))
    Path(folder, "config.yaml").write_text(yaml.safe_dump(content))


def newest(*words):
    found = find_newest(read_settings(["test", *words]).tree)
    return found and str(found)


def refusal(*words):
    with pytest.raises(MissingCheckpointError) as raised:
        require_checkpoint(read_settings(words))
    return str(raised.value)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_what_is_named_can_be_copied_and_runs(capsys):
    folder = "my runs"
    where = ["--config=digits-cnn", f"--trainer.logger.save_dir={folder}"]
    assert main(["fit", *where, *QUICK]) == 0
    capsys.readouterr()
    for command in ("validate", "test", "predict"):
        assert main([command, *where]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: Without --ckpt_path, 'adabelief {command}' would run with random weights. ")
        (line,) = (line for line in error.splitlines() if line.startswith("  --ckpt_path "))
        assert shlex.split(line) == ["--ckpt_path", f"{folder}/digits-cnn/version_0/checkpoints/best.ckpt"]
        assert main([command, *where, *shlex.split(line)]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_where_nothing_is_trained_it_says_how_to(command):
    assert refusal(command, "--config=digits-wgan") == (
        f"Without --ckpt_path, 'adabelief {command}' would run with random weights. "
        "There is no logs/digits-wgan/*/checkpoints/*.ckpt of this network. Train first:\n"
        "  adabelief fit --config digits-wgan\n"
        "(--ckpt_path null keeps the weights that the network is built with)"
    )


@pytest.mark.parametrize("word", ["best", "last"])
def test_lightnings_words_for_a_checkpoint_of_the_same_process_are_refused(word):
    write_run("logs/digits-cnn/version_0", "best.ckpt", written=1e9)
    message = refusal("test", "--config=digits-cnn", f"--ckpt_path={word}")
    assert message.startswith(f"--ckpt_path {word} means a run of the same process, and this one has not trained. ")
    assert "  --ckpt_path logs/digits-cnn/version_0/checkpoints/best.ckpt\n" in message


def test_a_checkpoint_on_the_command_line_or_in_a_config_is_taken_and_null_is_a_choice():
    Path("mine.yaml").write_text("ckpt_path: some.ckpt")
    Path("saved.yaml").write_text("ckpt_path: null")  # as a run saves it
    require_checkpoint(read_settings(["test", "--config=digits-cnn", "--ckpt_path=some.ckpt"]))
    require_checkpoint(read_settings(["test", "--config=digits-cnn", "--config=mine.yaml"]))
    require_checkpoint(read_settings(["test", "--config=digits-cnn", "--ckpt_path=null"]))
    require_checkpoint(read_settings(["fit", "--config=digits-cnn"]))
    assert "random weights" in refusal("test", "--config=digits-cnn", "--config=saved.yaml")


def test_of_the_newest_run_the_best_checkpoint_is_named_else_its_newest():
    write_run("logs/digits-cnn/version_0", "best.ckpt", written=2e9)
    write_run("logs/digits-cnn/version_1", "best.ckpt", written=1.0e9)
    write_run("logs/digits-cnn/version_1", "last.ckpt", written=2.1e9)
    assert newest("--config=digits-cnn") == "logs/digits-cnn/version_1/checkpoints/best.ckpt"
    write_run("logs/digits-cnn/mine", "epoch=1.ckpt", written=2.2e9)
    write_run("logs/digits-cnn/mine", "epoch=2.ckpt", written=2.3e9)
    assert newest("--config=digits-cnn") == "logs/digits-cnn/mine/checkpoints/epoch=2.ckpt"


def test_runs_of_another_network_and_broken_files_are_passed_over():
    write_run("logs/digits-cnn/version_0", "best.ckpt", written=1e9)
    write_run("logs/digits-cnn/version_1", "best.ckpt", written=2e9, width=8)
    write_run("logs/digits-cnn/version_2", "best.ckpt", written=2e9, config="digits-wgan")
    Path("logs/digits-cnn/version_3/checkpoints").mkdir(parents=True)
    Path("logs/digits-cnn/version_3/checkpoints/best.ckpt").write_bytes(b"PK half a file")
    assert newest("--config=digits-cnn") == "logs/digits-cnn/version_0/checkpoints/best.ckpt"
    assert newest("--config=digits-cnn", "--model.network.width=8") == (
        "logs/digits-cnn/version_1/checkpoints/best.ckpt"
    )
    assert newest("--config=digits-cnn", "--model.network.width=9") is None


def test_how_the_network_is_trained_may_differ_and_a_copied_config_finds_its_recipes_runs():
    write_run("logs/digits-cnn/version_0", "best.ckpt", written=1e9)
    Path("mine.yaml").write_text(find("digits-cnn").path.read_text())
    best = "logs/digits-cnn/version_0/checkpoints/best.ckpt"
    assert newest("--config=mine.yaml") == best
    assert newest("--config=mine.yaml", "--model.optimizer=torch.optim.SGD", "--data.batch_size=8") == best


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        (
            "csv/mine/version_3",
            ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv", "--trainer.logger.name=mine"],
        ),
        ("csv/lightning_logs/version_0", ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"]),
        (
            "w/project/3k2x",
            ["--trainer.logger=WandbLogger", "--trainer.logger.save_dir=w", "--trainer.logger.project=project"],
        ),
        ("lightning_logs/version_0", ["--trainer.logger=true"]),
        ("root/lightning_logs/version_0", ["--trainer.logger=true", "--trainer.default_root_dir=root"]),
        (".", ["--trainer.logger=false"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checkpoints_are_looked_for_where_each_logger_has_them(folder, options):
    write_run(folder, "best.ckpt", written=1e9)
    assert newest("--config=digits-cnn", *options) == str(Path(folder, "checkpoints/best.ckpt"))


def test_a_folder_of_ones_own_choice_is_looked_in():
    Path("kept").mkdir()
    torch.save({}, "kept/best.ckpt")
    words = ["--config=digits-cnn", "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=kept"]
    assert newest(*words) == "kept/best.ckpt"
