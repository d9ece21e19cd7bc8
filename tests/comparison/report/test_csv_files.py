"""The figures of all runs as CSV."""

import csv
import shlex

from lightning_adabelief.comparison.report.csv_files import write_history, write_results
from lightning_adabelief.comparison.report.results import Results
from tests.comparison.synthetic import VALIDATIONS, make_cases

CASES = make_cases()


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(case, folder):
    drawn = CASES[case]
    results = Results(drawn.plan, drawn.stages, drawn.outcomes)
    write_results(results, folder)
    write_history(results, folder)
    return results


def test_results_have_a_row_for_each_run_that_ended(tmp_path):
    results = write("failures", tmp_path)
    rows = read(tmp_path / "results.csv")
    assert len(rows) == len(results.runs)
    for row, run in zip(rows, results.runs, strict=True):
        assert (row["stage"], row["contender"], int(row["seed"])) == (
            run.trial.stage,
            run.trial.contender,
            run.trial.seed,
        )
        assert row["status"] == run.outcome.status and float(row["lr"]) == run.trial.lr
        assert float(row["seconds"]) == run.outcome.seconds
        for name, value in run.outcome.metrics.items():
            assert row[name] == str(value)
        assert row["fingerprint/weights"] == run.outcome.fingerprints["weights"]
    assert list(rows[0])[-1] == "command"


def test_the_command_names_the_trials_config_wherever_the_folder_is(tmp_path):
    folder = tmp_path / "my runs"
    write("win", folder)
    row = read(folder / "results.csv")[0]
    assert shlex.split(row["command"]) == [
        "adabelief",
        "fit",
        "--config",
        str(folder / "trials" / row["name"] / "config.yaml"),
    ]


def test_history_has_a_row_for_each_validation(tmp_path):
    results = write("win", tmp_path)
    rows = read(tmp_path / "history.csv")
    assert len(rows) == VALIDATIONS * len(results.runs)
    first = results.runs[0]
    assert rows[0]["name"] == first.trial.name
    assert {name: float(rows[0][name]) for name in first.outcome.history[0]} == first.outcome.history[0]


def test_before_any_run_there_are_headers_alone(tmp_path):
    write("planned", tmp_path)
    assert read(tmp_path / "results.csv") == [] == read(tmp_path / "history.csv")
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").startswith("name,stage,contender,relative_lr,lr,")
