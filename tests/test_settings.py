"""The command line and its configs, put together as the Lightning CLI will."""

import pytest
import yaml

from lightning_adabelief.cli.main import main
from lightning_adabelief.settings import read_settings

SET = ["--model.network.num_classes=3", "--model.network.in_channels=2", "--model.optimizer.max_update_to_lr=5"]


def test_null_unsets_an_option_of_a_class_within_a_class(capsys):
    unset = ["--model.network.init_args.num_classes=null", "--model.network.in_channels", "null"]
    words = ["fit", "--config", "digits-cnn", *SET, *unset, "--model.optimizer.max_update_to_lr=null"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print_config"])
    assert not ended.value.code
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["network"]["init_args"]["num_classes"] is None
    assert model["network"]["init_args"]["in_channels"] is None
    assert model["optimizer"]["init_args"]["max_update_to_lr"] is None


@pytest.mark.parametrize(
    "words",
    [
        ["--model.network.num_classes", "7", "--model.network.num_classes", "null"],
        ["--model.network.num_classes=null", "--model.network.num_classes=7"],
    ],
)
def test_later_of_two_options_wins_when_one_is_null(words, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "digits-cnn", *words, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["network"]["init_args"]["num_classes"] == yaml.safe_load(words[-1].partition("=")[2] or words[-1])


@pytest.mark.parametrize("word", ["--model.lr_scheduler=null", "--trainer.callbacks.every_n_steps=null", "--data=null"])
def test_other_nulls_are_left_to_the_lightning_cli(word):
    assert read_settings(["fit", "--config=digits-cnn", word]).words[-1] == word
