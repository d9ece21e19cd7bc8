"""A user's own checkers find nothing wrong with the usual calls, and these do what they say."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import lightning_adabelief
from lightning_adabelief.configure.build import configure_adabelief
from lightning_adabelief.configure.option_types import AdaBeliefOptions, ConfigureOptions
from tests.typing import user_file

ROOT = Path(__file__).parents[2]
FILE = Path(user_file.__file__)
SAID_IN_THE_OVERLOADS = {"module", "lr", "schedule", "options", "return"}


def check(checker, *options):
    pytest.importorskip(checker, reason="one of [dev], not of [test]")
    done = subprocess.run([sys.executable, "-m", checker, *options, FILE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not find_spec("basedpyright"), reason="needs the extra [dev]")
def test_pyright_finds_no_error():
    check("basedpyright", "--level=error", f"--pythonpath={sys.executable}")


@pytest.mark.slow
def test_mypy_finds_no_error_in_strict_mode():
    check("mypy", "--config-file=", "--strict", "--untyped-calls-exclude=torch", "--follow-imports=silent")


def test_every_public_name_is_called_and_nothing_is_ignored():
    text = FILE.read_text(encoding="utf-8")
    called = {
        node.func.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    assert {*lightning_adabelief.__all__, "measure"} - {"AdaBelief", "ConfiguredAdaBelief"} <= called
    assert "ignore" not in text


def test_the_usual_calls_run(tmp_path):
    beliefs = user_file.train_in_a_plain_loop()
    assert beliefs.layers.keys() == {"weight", "bias"}
    model = torch.nn.Linear(4, 1)
    weight = model.weight.detach().clone()
    user_file.go_on_from_adamw(model, torch.optim.AdamW(model.parameters()))
    assert not torch.equal(model.weight, weight)
    assert len(user_file.train(tmp_path)) == 3


def test_the_recipes_and_schedules_of_the_file_are_made(tmp_path):
    assert len(user_file.make_recipes(tmp_path)) == 5
    optimizers = user_file.TwoSchedules().configure_optimizers()
    assert [config["lr_scheduler"]["interval"] for config in optimizers] == ["epoch", "epoch"]


def test_checkers_know_the_options_that_configure_adabelief_has():
    own = {name: of for name, of in configure_adabelief.__annotations__.items() if name not in SAID_IN_THE_OVERLOADS}
    of_checkers = {name: of.__forward_arg__ for name, of in ConfigureOptions.__annotations__.items()}
    assert {name: of_checkers.get(name) for name in own} == own
    assert of_checkers.keys() == own.keys() | AdaBeliefOptions.__annotations__.keys()
