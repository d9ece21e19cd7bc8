"""The command, as a user types it."""

import contextlib
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find, recipes
from lightning_adabelief.recipes.image_classification import ImageClassifier

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.log_every_n_steps=1"]
RESUMES = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def adabelief(*words):
    return subprocess.run([sys.executable, "-m", "lightning_adabelief", *words], capture_output=True, text=True)


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_list_shows_every_recipe_with_its_facts(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    for recipe in recipes().values():
        (row,) = (row for row in rows if row[0] == recipe.name)
        assert recipe.facts["parameters"] in row
        if columns == 200:  # where no fact is folded
            assert " ".join(row) == " ".join(
                [recipe.name, *(recipe.facts[fact] for fact in ("data", "parameters", "paper", "measured"))]
            )


def test_show_prints_the_config_to_the_letter(capsys):
    assert main(["show", "digits-cnn"]) == 0
    assert capsys.readouterr().out == find("digits-cnn").path.read_text()


def test_copy_copies_here_into_a_folder_or_to_a_file(capsys):
    Path("folder").mkdir()
    for dest, path in ([], "digits-cnn.yaml"), (["folder"], "folder/digits-cnn.yaml"), (["mine.yaml"], "mine.yaml"):
        assert main(["copy", "digits-cnn", *dest]) == 0
        assert Path(path).read_bytes() == find("digits-cnn").path.read_bytes()
        assert f"adabelief fit --config {path}" in capsys.readouterr().out


def test_copy_leaves_what_exists_as_it_is(capsys):
    Path("mine.yaml").write_text("mine")
    assert main(["copy", "digits-cnn", "mine.yaml"]) == 1
    assert Path("mine.yaml").read_text() == "mine"
    assert "mine.yaml exists" in capsys.readouterr().err
    assert main(["copy", "digits-cnn", "no/mine.yaml"]) == 1
    assert "no folder no" in capsys.readouterr().err


def test_fit_closes_with_score_layers_places_and_the_tensorboard_command(capsys):
    assert main(["fit", "--config", "digits-cnn", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "test/accuracy" in out and "test/loss" in out
    assert (
        len(re.findall(r"network\.(block|classifier)", out)) == 5
    )  # once: the monitor leaves its table to the command
    for column in ("s_t", "step size", "gain over", "eps"):
        assert column in out
    run = Path("logs/digits-cnn/version_0")
    assert str(run) in out and f"{run}/checkpoints/best.ckpt" in out
    assert "tensorboard --logdir logs/digits-cnn" in out
    assert (run / "checkpoints/best.ckpt").is_file() and (run / "config.yaml").is_file()
    assert (run / "belief.png").is_file() and (run / "belief.csv").is_file()


def test_a_config_can_leave_the_closing_table_out(capsys):
    config = yaml.safe_load(find("digits-cnn").path.read_text())
    config["trainer"]["callbacks"][0]["init_args"]["closing_table"] = False
    Path("config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "config.yaml", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "test/accuracy" in out and "notable" not in out


@RESUMES
def test_validate_test_and_predict_run_from_a_checkpoint(capsys):
    main(["fit", "--config", "digits-cnn", *QUICK])
    checkpoint = "--ckpt_path=logs/digits-cnn/version_0/checkpoints/best.ckpt"
    assert main(["validate", "--config", "digits-cnn", checkpoint]) == 0
    assert main(["test", "--config=digits-cnn", checkpoint]) == 0
    capsys.readouterr()
    assert main(["predict", "-c", "digits-cnn", checkpoint]) == 0
    path = Path(capsys.readouterr().out.split("Predictions: ")[1].split(" (")[0])
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert path.name == "predictions.csv" and len(header) == 3 + 10 and len(rows) == 360


def test_predictions_that_are_no_table_are_kept_beside_those_of_an_earlier_run():
    boring = "pytorch_lightning.demos.boring_classes.Boring"
    words = [f"--model={boring}Model", f"--data={boring}DataModule", "--ckpt_path=null", "--trainer.logger=false"]
    for _ in range(2):
        assert main(["predict", *words]) == 0
    first, second = (torch.load(name) for name in ("predictions.pt", "predictions_1.pt"))
    assert len(first) == len(second) == 64


def test_the_saved_config_runs_again():
    main(["fit", "--config", "digits-cnn", *QUICK])
    assert main(["fit", "--config", "logs/digits-cnn/version_0/config.yaml"]) == 0
    assert Path("logs/digits-cnn/version_1/checkpoints/best.ckpt").is_file()


def test_without_a_logger_or_a_checkpoint_it_still_closes(capsys):
    config = yaml.safe_load(find("digits-cnn").path.read_text())
    config["trainer"] |= {"logger": False, "callbacks": None, "enable_checkpointing": False, "max_epochs": 1}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    before = Path("config.yaml").read_bytes()
    assert main(["fit", "--config", "config.yaml", "--trainer.enable_progress_bar=false"]) == 0
    assert "test/accuracy" in capsys.readouterr().out
    assert Path("config.yaml").read_bytes() == before


@RESUMES
def test_a_run_resumes_from_its_last_checkpoint(capsys):
    main(["fit", "--config", "digits-cnn", *QUICK])
    last = "--ckpt_path=logs/digits-cnn/version_0/checkpoints/last.ckpt"
    assert main(["fit", "--config", "digits-cnn", "--trainer.max_epochs=2", *QUICK[1:], last]) == 0
    checkpoint = torch.load("logs/digits-cnn/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    assert {float(s["step"]) for s in checkpoint["optimizer_states"][0]["state"].values()} == {6.0}


USAGE_ERRORS = [
    (["show", "digit-cnn"], "Unknown recipe: 'digit-cnn'. Did you mean 'digits-cnn'"),
    (["copy", "digit-cnn"], "Unknown recipe: 'digit-cnn'. Did you mean 'digits-cnn'"),
    (["fit", "--config", "digit-cnn"], "Unknown config: 'digit-cnn'"),
    (["fit"], "There is no data and no model. Give a config that has both, for example --config digits-cnn"),
    (["fit", "--config", "."], "'.' is a folder"),
    (["fit", "--config", "digits-cnn", "--model", "nope.Nope"], "There is no module 'nope'"),
    # what the parser alone can tell
    (["fit", "--config", "digits-cnn", "--model.network", "torch.optim.SGD"], "model.network"),
    (["fit", "--config", "digits-cnn", "--trainer.logger.save_dirr", "x"], "has no option 'save_dirr'"),
]
ERRORS = [
    (
        ["fit", "--config", "digits-cnn", "--model.optimizer.warmup=1.5"],
        "Invalid warmup: 1.5. As a float it is",
    ),
    (
        ["fit", "--config", "digits-cnn", "--model.optimizer.warmup=0.1", "--trainer.max_epochs=-1"],
        "warmup=0.1: The length of the run is needed, and can't be known",
    ),
    (["fit", "--config", "digits-cnn", "--model.optimizer.betas=[0,0.9]"], "residual='previous'"),
    (["fit", "--config", "digits-cnn", "--data.batch_size=0"], "error: Invalid batch_size: 0. Give 1 or more"),
    (["fit", "--config", "digits-cnn", "--trainer.logger=false"], "BeliefMonitor has nowhere to log to"),
    (["fit", "--config", "digits-cnn", "--trainer.callbacks+=LearningRateFinder"], "this model has neither"),
    (["test", "--config", "digits-cnn", "--ckpt_path=none.ckpt"], "none.ckpt"),
]


def run_and_read_error(words, capsys):
    status = main(words)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert len(error) < 400, "one clear error, not the parser's whole report"
    return status, error


@pytest.mark.parametrize(("words", "message"), USAGE_ERRORS, ids=[" ".join(words) for words, _ in USAGE_ERRORS])
def test_a_wrong_command_line_is_told_without_traceback_with_status_2(words, message, capsys):
    status, error = run_and_read_error(words, capsys)
    assert status == 2 and message in error


@pytest.mark.parametrize(("words", "message"), ERRORS, ids=[" ".join(words) for words, _ in ERRORS])
def test_a_users_error_is_told_without_traceback_with_status_1(words, message, capsys):
    status, error = run_and_read_error(words, capsys)
    assert status == 1 and message in error


def test_a_file_that_is_no_checkpoint_and_one_of_another_network_are_named(capsys):
    Path("bad.ckpt").write_bytes(b"not a checkpoint")
    assert main(["fit", "--config", "digits-cnn", "--ckpt_path=bad.ckpt"]) == 1
    assert "bad.ckpt is no checkpoint of Lightning" in capsys.readouterr().err
    main(["fit", "--config", "digits-cnn", *QUICK, "--trainer.logger.version=mine"])
    last = "--ckpt_path=logs/digits-cnn/mine/checkpoints/last.ckpt"
    assert main(["test", "--config", "digits-cnn", "--model.network.width=16", last]) == 1
    assert "another network" in capsys.readouterr().err


def test_a_run_of_the_same_version_leaves_the_first_as_it_is(capsys):
    words = ["fit", "--config", "digits-cnn", *QUICK, "--trainer.logger.version=mine"]
    assert main(words) == 0
    assert main(words) == 1
    assert "logs/digits-cnn/mine holds another run" in capsys.readouterr().err


OWN = """
import pytorch_lightning as pl
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier

class Untested(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.digits = DigitsDataModule()
        self.digits.setup("fit")

    def train_dataloader(self):
        return self.digits.train_dataloader()

    def val_dataloader(self):
        return self.digits.val_dataloader()

class Failing(ImageClassifier):
    def training_step(self, batch, batch_idx):
        raise ValueError("a mistake of mine")
"""
NAMES = ("own_module", "lightning_own", "jsonargparse_own", "lightning_adabelief_own", "pytorch_lightning_own")


@pytest.fixture
def own_module(monkeypatch):
    """Modules in this folder, forgotten afterwards."""
    for name in NAMES:
        Path(f"{name}.py").write_text(OWN)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def test_classes_of_this_folder_can_be_named_and_data_need_have_no_test(own_module, capsys):
    assert main(["fit", "--config", "digits-cnn", "--data", "own_module.Untested", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "test/accuracy" not in out and "best.ckpt" in out


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_a_module_of_the_users_own_keeps_its_traceback_whatever_its_name(name, own_module):
    words = [
        "--model",
        f"{name}.Failing",
        "--model.network=lightning_adabelief.recipes.image_classification.SmallCNN",
    ]
    with pytest.raises(ValueError, match="a mistake of mine"):
        main(["fit", "--config", "digits-cnn", *words])


def test_an_interrupted_training_closes_with_where_its_checkpoint_is(monkeypatch, capsys):
    def interrupt(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ImageClassifier, "on_train_epoch_end", interrupt)
    with contextlib.suppress(SystemExit):  # as Lightning ends an interrupted training, in newer versions
        main(["fit", "--config", "digits-cnn", "--trainer.max_epochs=3", *QUICK[1:]])
    out = capsys.readouterr().out
    assert "logs/digits-cnn/version_0/checkpoints/best.ckpt" in out and "tensorboard --logdir" in out


def test_the_tensorboard_command_is_told_where_there_is_something_to_see(capsys):
    csv = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"]
    assert main(["fit", "--config", "digits-cnn", *QUICK, *csv]) == 0
    out = capsys.readouterr().out
    assert "tensorboard --logdir" not in out and "csv/digits-cnn/version_0" in out


def test_an_argument_that_a_class_of_the_config_refuses_is_told_in_its_own_words(capsys):
    Path("mine.yaml").write_text(find("digits-cnn").path.read_text().replace("every_n_steps: null", "every_n_steps: 0"))
    assert main(["fit", "--config", "mine.yaml"]) == 1
    assert "error: Invalid every_n_steps: 0. Give a whole number, 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"a: b: c", b"\x00\xff{{", b"just words", b"[1, 2]", b"", b"trainer: 3"], ids=repr)
def test_a_config_that_is_no_yaml_is_named(content, capsys):
    Path("mine.yaml").write_bytes(content)
    assert main(["fit", "--config", "mine.yaml"]) == 2
    error = capsys.readouterr().err
    assert "he config mine.yaml" in error and "adabelief show digits-cnn" in error


def test_as_a_process_it_fails_without_traceback_and_shows_one_on_request(monkeypatch):
    failed = adabelief("fit", "--config", "nope")
    assert failed.returncode == 2 and "error: Unknown config: 'nope'" in failed.stderr
    assert "Traceback" not in failed.stderr
    monkeypatch.setenv("ADABELIEF_TRACEBACK", "1")
    assert "Traceback" in adabelief("fit", "--config", "nope").stderr


@pytest.mark.parametrize("words", [["--debug", "show", "nope"], ["show", "nope", "--debug"]])
def test_debug_shows_the_traceback_and_the_same_status(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback") and "error: Unknown recipe: 'nope'" in error


@pytest.mark.parametrize(("word", "meant"), [("ft", "fit"), ("valdate", "validate"), ("shwo", "show")])
def test_a_misspelt_command_is_answered_by_the_one_that_was_meant_with_status_2(word, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([word, "--config", "digits-cnn"])
    assert stopped.value.code == 2
    assert f"Unknown command: {word!r}. Did you mean {meant!r}" in capsys.readouterr().err
