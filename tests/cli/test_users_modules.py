"""Which of the user's modules are imported before the command's own."""

import json
import sys
from pathlib import Path

import pytest

from lightning_adabelief.cli.users_modules import import_users_modules
from lightning_adabelief.settings import read_settings

NAMES = ("users_net", "users_other")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in NAMES:
        Path(f"{name}.py").write_text("class Net: ...")
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def imported(*words):
    import_users_modules(read_settings(words).tree)
    return [name for name in NAMES if name in sys.modules]


LONG = {"class_path": "users_net.Net", "init_args": {"comment": "a=b " * 100}}


@pytest.mark.parametrize(
    "words",
    [
        ["--model=users_net.Net"],
        ["--model", "users_net.Net"],
        ["--config=own.yaml"],
        ["--config", "own.json"],
        [f"--model={json.dumps(LONG)}"],
        ["--model", json.dumps(LONG)],
        ["--model={class_path: users_net.Net}"],
    ],
    ids=lambda words: words[0][:20] + f" {len(words)}",
)
def test_a_class_is_found_on_the_command_line_in_a_config_and_in_json(words):
    Path("own.yaml").write_text("model:\n  class_path: 'users_net.Net'\n")
    Path("own.json").write_text(json.dumps({"model": {"class_path": "users_net.Net"}}, indent=1))
    assert imported("fit", *words) == ["users_net"]


def test_the_class_of_an_optimizer_and_of_a_callback_in_a_list_are_found():
    assert imported("fit", "--config=digits-cnn", "--model.optimizer=users_net.Net") == ["users_net"]
    assert imported("fit", "--config=digits-cnn", "--trainer.callbacks+=users_other.Net") == [
        "users_net",
        "users_other",
    ]


@pytest.mark.parametrize("path", ["users_net.ckpt", "users_net.csv", "./users_net.py", "users_net"])
def test_a_file_of_the_name_of_a_module_is_no_class(path):
    assert imported("test", f"--ckpt_path={path}") == []


def test_checkpoints_are_not_read():
    Path("last.ckpt").write_text("class_path: users_net.Net")
    assert imported("fit", "--ckpt_path=last.ckpt") == []
