"""Rectification or a warmup, by the length of the run, where the user has chosen neither."""

import logging
import warnings

import pytest
from torch.utils.data import DataLoader

from lightning_adabelief import configure_adabelief
from tests.configure.nets import DATA, Net, fit, make_trainer

CHOICES = [
    (dict(), 252, (False, 0.05)),
    (dict(), 20_000, (True, 0)),
    (dict(betas=(0.9, 0.9)), 252, (True, 0)),
    (dict(warmup=10), 20_000, (False, 10)),
    (dict(warmup=0.1), 252, (False, 0.1)),
    (dict(warmup=0), 252, (False, 0)),
    (dict(warmup=0), 20_000, (True, 0)),
    (dict(rectify=False), 252, (False, 0)),
    (dict(rectify=True), 20_000, (True, 0)),
    (dict(rectify=True, warmup=10), 20_000, (True, 10)),
]


@pytest.mark.parametrize(("given", "total_steps", "chosen"), CHOICES, ids=str)
def test_what_is_given_is_kept_and_the_rest_follows_from_the_length(given, total_steps, chosen):
    (group,) = configure_adabelief(Net(), total_steps=total_steps, **given).param_groups
    assert (group["rectify"], group["warmup"]) == chosen


def test_where_the_length_is_unknown_the_originals_defaults_hold():
    (group,) = configure_adabelief(Net()).param_groups
    assert (group["rectify"], group["warmup"], group["total_steps"]) == (True, 0, None)
    (group,) = fit(Net(), max_epochs=-1, max_time={"seconds": 1}).param_groups
    assert (group["rectify"], group["warmup"]) == (True, 0)


def test_the_choice_is_said_in_one_line_with_what_it_comes_to(caplog):
    with caplog.at_level(logging.INFO):
        fit(Net(), max_epochs=7)
    (line,) = [record.message for record in caplog.records if record.message.startswith("AdaBelief:")]
    assert line == ("AdaBelief: rectify=False and warmup=0.05 chosen for a run of 42 steps: 0.99 of lr acts on average")


def test_a_choice_of_the_users_that_leaves_less_than_half_of_lr_is_warned_of_with_the_setting_to_use():
    with pytest.warns(UserWarning, match="let only 0.23 of lr act .* over 252 steps. Give rectify=False and warmup=0"):
        configure_adabelief(Net(), rectify=True, total_steps=252)
    with pytest.warns(UserWarning, match="rectify=False and warmup=500 let only 0.25 of lr"):
        configure_adabelief(Net(), warmup=500, total_steps=252)


def test_a_choice_that_leaves_half_of_lr_and_a_trial_of_one_batch_are_not_spoken_of(caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        configure_adabelief(Net(), rectify=True, total_steps=2_000)
        warnings.filterwarnings("ignore", message=".*(LeafSpec|does not have many workers|number of training).*")
        fit(Net(rectify=True), fast_dev_run=True)
        fit(Net(), fast_dev_run=True)
    assert "of lr" not in caplog.text


def test_a_resumed_run_has_what_its_checkpoint_has_and_speaks_of_no_choice(tmp_path, caplog):
    first = make_trainer(max_epochs=1)
    module = Net(rectify=True, warmup=0, total_steps=20_000)
    first.fit(module, DataLoader(DATA, batch_size=4))
    first.save_checkpoint(tmp_path / "saved.ckpt")
    with caplog.at_level(logging.INFO):
        (group,) = fit(Net(), tmp_path / "saved.ckpt", max_epochs=2).param_groups
    assert (group["rectify"], group["warmup"]) == (True, 0)
    assert "chosen" not in caplog.text
