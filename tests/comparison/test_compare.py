"""The whole command on a module and data that are not ours: from a config to a report."""

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.comparison.compare import find_reported_metric, read_plan
from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.trial import Outcome, Trial

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model": {"class_path": "tests.comparison.users_module.RegressionWithOptimizer", "init_args": {"width": 8}},
    "data": {"class_path": "tests.comparison.users_module.LineData"},
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_loss"}}],
    },
}


def write_config(folder, **changes):
    path = folder / "users.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(path)


def compare(config, out, *options):
    words = ["compare", config, "--out", str(out), "--seeds", "1", "--lr", "1", "--jobs", "2", *options]
    return main(words)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Compare on somebody's own config, with nothing changed in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where the user's module can be imported
        out = tmp_path_factory.mktemp("compare") / "out"
        config = write_config(out.parent)
        assert compare(config, out, "--optimizers", "adamw,adabelief") == 0
        yield config, out


def read_results(out):
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_trial_of_both_stages_has_run(compared):
    _, out = compared
    rows = read_results(out)
    assert [(row["stage"], row["contender"], row["seed"]) for row in rows] == [
        ("tuning", "adamw", "1000"),
        ("tuning", "adabelief", "1000"),
        ("report", "adamw", "0"),
        ("report", "adabelief", "0"),
    ]
    assert {row["status"] for row in rows} == {"finished"}


def test_the_test_is_read_in_the_report_alone(compared):
    _, out = compared
    assert [bool(row["test_loss"]) for row in read_results(out)] == [False, False, True, True]


def test_weights_and_batches_are_the_same_for_a_seed(compared):
    _, out = compared
    rows = read_results(out)
    for name in ("fingerprint/weights", "fingerprint/batch"):
        assert rows[0][name] == rows[1][name] and rows[2][name] == rows[3][name]
    assert rows[0]["fingerprint/weights"] != rows[2]["fingerprint/weights"]


def test_the_report_is_written(compared):
    _, out = compared
    for name in ("report.html", "report.md"):
        text = (out / name).read_text()
        assert "adabelief" in text and "test_loss" in text and "users" in text


def test_a_trial_is_repeated_by_hand_with_the_command_of_the_report(compared, monkeypatch):
    _, out = compared
    row = read_results(out)[-1]
    words = row["command"].split()
    assert words[:3] == ["adabelief", "fit", "--config"]
    monkeypatch.chdir(ROOT)
    folder = Path(words[3]).parent
    before = Outcome.from_json((folder / "outcome.json").read_text())
    assert main(words[1:]) == 0
    assert Outcome.from_json((folder / "outcome.json").read_text()).metrics == before.metrics


def test_the_same_command_again_repeats_nothing(compared, monkeypatch):
    config, out = compared
    monkeypatch.chdir(ROOT)
    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/output.txt")}
    assert compare(config, out, "--optimizers", "adamw,adabelief") == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("trials/*/output.txt")} == before


def test_another_plan_in_the_same_folder_is_refused_with_the_difference(compared, monkeypatch, capsys):
    config, out = compared
    monkeypatch.chdir(ROOT)
    assert compare(config, out, "--optimizers", "adamw,adabelief", "--set", "trainer.max_epochs=3") == 2
    message = capsys.readouterr().err
    assert "another comparison" in message and "settings.trainer.max_epochs: 2, now 3" in message


def test_a_list_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["compare", write_config(tmp_path), "--optimizers", "adamw,sgd", "--list"]) == 0
    text = capsys.readouterr().out
    assert "adamw" in text and "tuning" in text and not list(tmp_path.glob("trials"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "There is no config"),
        (["compare", "digits-cnn"], "--out DIR"),
        (["compare", "digits-cmm", "--out", "x"], "Did you mean.*digits-cnn"),
        (["compare", "digits-cnn", "--out", "x", "--optimizers", "adamw"], "at least two"),
        (["compare", "digits-cnn", "--out", "x", "--optimizers", "adamw,adan"], "Unknown optimizer"),
        (["compare", "digits-cnn", "--out", "x", "--optimizers", "{adamw"], "--optimizers"),
        (["compare", "digits-cnn", "--out", "x", "--lr", "fast"], "learning rate of the grid is 'fast'"),
        (["compare", "digits-cnn", "--out", "x", "--set", "epochs"], "not KEY=VALUE"),
        (["compare", "digits-cnn", "--out", "x", "--set", "trainer.max_epoch=1"], "max_epochs"),
        (["compare", "digits-cnn", "--out", "x", "--metric", "val/accuracy"], "--mode"),
        (["compare", "digits-cnn", "--out", "x", "--jobs", "0"], "number of jobs is 0"),
        (["compare", "digits-sngan", "--out", "x", "--vary", "critic"], "no optimizer 'critic'"),
        (["compare", "--worker", "nowhere"], "holds no comparison"),
    ],
)
def test_what_is_not_possible_is_said_in_one_message(words, message, tmp_path, monkeypatch, capsys):
    import re

    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
    assert not (tmp_path / "x" / "trials").exists()


def test_a_module_that_makes_its_own_optimizer_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    model = {"class_path": "tests.comparison.users_module.StubbornRegression"}
    assert compare(write_config(tmp_path, model=model), tmp_path / "out") == 2
    assert "OptimizerCallable" in capsys.readouterr().err


def test_a_module_that_does_not_use_the_optimizer_is_found_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    model = {"class_path": "tests.comparison.users_module.DeafRegression"}
    assert compare(write_config(tmp_path, model=model), tmp_path / "out", "--optimizers", "adamw,radam") == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "2 of 2 trials crashed" in message and "optimizer: OptimizerCallable" in message


def test_python_gives_the_table(compared, monkeypatch):
    import lightning_adabelief

    config, out = compared
    monkeypatch.chdir(ROOT)
    result = lightning_adabelief.compare(config, ["adamw", "adabelief"], out=out, seeds=1, lr=[1.0], jobs=2)
    assert result.table.row_count == 2 and result.report == out / "report.html"
    assert json.loads((out / "plan.json").read_text())["config"] == config and sys.path


@pytest.mark.parametrize(
    ("logged", "expected"), [("test/loss", "test/loss"), ("test/error", None)], ids=["logged", "not logged"]
)
def test_the_validations_metric_is_compared_where_the_test_logs_no_such(logged, expected):
    plan = read_plan("digits-cnn", ["adamw", "sgd"], seeds=1)
    trial = Trial("one", REPORT, "adamw", 1.0, 1e-3, 0.0, 0)
    outcome = Outcome("finished", {"val/loss": 0.5, logged: 0.5})
    found = find_reported_metric(plan, Progress({REPORT: [trial]}, {"one": outcome}))
    assert found.test_metric == expected
    assert len(found.unequal) == len(plan.unequal) + (expected is None)


def test_a_comparison_with_a_database_does_not_go_on_without_it(compared, tmp_path, monkeypatch, capsys):
    config, out = compared
    monkeypatch.chdir(ROOT)
    (tmp_path / "out" / "trials").mkdir(parents=True)
    (tmp_path / "out" / "plan.json").write_text((out / "plan.json").read_text())
    assert compare(config, tmp_path / "out", "--optimizers", "adamw,adabelief") == 2
    assert "--storage" in capsys.readouterr().err
    assert main(["compare", "--worker", str(tmp_path / "out")]) == 2
    assert "--worker" in capsys.readouterr().err


def test_several_options_of_one_key_are_all_set(tmp_path, monkeypatch):
    words = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=EarlyStopping"]
    plan = read_plan("digits-cnn", ["adamw", "sgd"], words)
    assert plan.settings["trainer"]["callbacks"][-2:] == ["LearningRateMonitor", "EarlyStopping"]
