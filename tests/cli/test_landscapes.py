"""``adabelief landscapes``, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_adabelief.cli.main import main

QUICK = ["--steps", "20", "--no-animation"]

HELP_WITHOUT_TORCH = """
import sys
from lightning_adabelief.cli.main import main
try:
    main(["landscapes", "--help"])
finally:
    heavy = {"torch", "matplotlib", "numpy", "rich"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_help_answers_before_torch_is_loaded():
    done = subprocess.run([sys.executable, "-c", HELP_WITHOUT_TORCH], capture_output=True, text=True)
    assert done.returncode == 0 and "--optimizers" in done.stdout and not done.stderr


def test_it_prints_its_table_and_says_what_it_wrote(capsys):
    assert main(["landscapes", "--out", "out", "--functions", "l1", "--lr", "0.1", *QUICK]) == 0
    out = capsys.readouterr().out
    for optimizer in ("SGD", "Adam", "AdaBelief"):
        assert f" {optimizer} " in out
    assert "\u2026" not in out  # nothing is cut off
    assert "Learning rates as given." in " ".join(out.split())
    assert "Wrote paths.png, losses.png, regions.png, steps.md, steps.csv into out" in out
    assert set(os.listdir("out")) == {"paths.png", "losses.png", "regions.png", "steps.md", "steps.csv"}


def test_a_function_and_optimizers_of_the_users_own_take_part(capsys):
    Path("my_valleys.py").write_text("def valley(x, y):\n    return (x - 1) ** 2 + 10 * y**2\n")
    nesterov = "{class_path: torch.optim.SGD, init_args: {momentum: 0.5, nesterov: true, lr: 1e-2}}"
    words = ["--functions", "my_valleys.valley", "--start", "-2", "1", "--optimizers", nesterov, "torch.optim.Adagrad"]
    assert main(["landscapes", "--out", "out", *words, *QUICK]) == 0
    table = Path("out/steps.csv").read_text().splitlines()
    assert table[1].startswith('my_valleys.valley,-2.0,1.0,"SGD (momentum=0.5, nesterov=True)",0.01,False,')
    assert table[2].startswith("my_valleys.valley,-2.0,1.0,Adagrad,")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--functions", "beal"], "Unknown function: 'beal'. Did you mean 'beale'"),
        (["--functions", "math.pi", "--start", "0", "1"], "math.pi is of type float, not a function"),
        (["--functions", "os.path.join", "--start", "0", "1"], "os.path.join(x, y) raised TypeError"),
        (["--functions", "torch.add"], "torch.add has no start"),
        (["--optimizers", "torch.optim.LBFGS"], "without a closure"),
        (["--optimizers", "{class_path: 3}"], "Give a name or class path"),
        (["--optimizers", "{path: torch.optim.SGD}"], "is not of the form"),
        (["--optimizers", "{class_path: torch.optim.SGD, init_args: 3}"], "The init_args of torch.optim.SGD are 3"),
        (["--optimizers", "{class_path: torch.optim.SGD, init_args: {lr: a}}"], "The learning rate of SGD is 'a'"),
        (["--betas", "0.9", "2"], "Invalid beta parameter at index 1: 2.0"),
        (["--lr", "0"], "The learning rate of SGD is 0.0. Give a number above 0"),
        (["--steps", "-1"], "The number of steps is -1"),
        (["--start", "nan", "1"], "The start is (nan, 1.0)"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_told_in_a_line_with_status_2_and_nothing_is_written(words, message, capsys):
    assert main(["landscapes", "--out", "out", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("out").exists()


def test_where_no_folder_can_be_made_it_is_told(capsys):
    Path("file").write_text("mine")
    assert main(["landscapes", "--out", "file/out", *QUICK]) == 1
    assert "file/out: Not a directory" in capsys.readouterr().err and Path("file").read_text() == "mine"
