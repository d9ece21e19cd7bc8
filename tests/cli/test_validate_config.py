"""``adabelief validate-config``, as a user types it."""

from pathlib import Path

import pytest

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_good_config_is_called_good_and_what_is_left_unchecked_is_named(capsys):
    assert main(["validate-config", "digits-cnn"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("digits-cnn is good, as far as can be told without importing torch")
    assert out[1] == "Not all is checked of: trainer.logger"  # TensorBoardLogger hands on **kwargs


def test_a_wrong_one_is_told_with_each_problem_and_a_failing_status(capsys):
    Path("mine.yaml").write_text(find("digits-cnn").path.read_text().replace("width: 32", "widht: 32"))
    assert main(["validate-config", "mine.yaml", "--trainer.max_epochs=abc"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --trainer.max_epochs must be a whole number. Got 'abc'",
        "In mine.yaml, model.network.widht: SmallCNN has no option 'widht'. Did you mean 'model.network.width'?",
    ]


def test_full_builds_everything_and_trains_nothing(capsys):
    assert main(["validate-config", "digits-cnn", "--full"]) == 0
    assert "everything that it names was built" in capsys.readouterr().out
    assert not list(Path().iterdir())
    assert main(["validate-config", "--full", "digits-cnn", "--data.batch_size=0"]) == 1
    assert "Invalid batch_size: 0" in capsys.readouterr().err


def test_versions_are_those_installed(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    for name in ("lightning-adabelief", "torch", "pytorch-lightning", "lightning"):
        assert lines[name] == version(name)
