"""A run that is resumed ends as one that was not interrupted, to the bit."""

import logging
import re

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_adabelief import AdaBelief
from lightning_adabelief.callbacks import ResumeReport
from tests.configure.nets import BATCHES, DATA, Net, Recording, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]


def run(module, ckpt_path=None, save_every=None, **options):
    """Train; with ``save_every`` so many steps, saving as ModelCheckpoint does. Batches are all the same."""
    if save_every:
        saving = ModelCheckpoint(options.pop("folder"), "{step}", every_n_train_steps=save_every, save_top_k=-1)
        options |= {"callbacks": [saving], "enable_checkpointing": True}
    trainer = make_trainer(**options)
    trainer.fit(module, DataLoader(DATA[:4].repeat(BATCHES, 1), batch_size=4), ckpt_path=ckpt_path)
    return trainer


OPTIONS = [
    dict(warmup=0.5),
    dict(warmup=0.3, schedule="cosine", weight_decay=0.1),
    dict(warmup=4, schedule="linear", rectify=False, amsgrad=True),
    dict(warmup=0, schedule="step", betas=(0.0, 0.9), residual="previous"),
    dict(warmup=0.5, schedule="cosine", fused=False, layers={"network.0.*": {"lr": 1e-4}}),
]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("saved_at", [2, 5, 6])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_resumed_run_ends_at_the_same_parameters_to_the_bit(options, saved_at, accumulate, tmp_path):
    limits = dict(max_epochs=4, accumulate_grad_batches=accumulate)
    whole = Net(lr=1e-2, **options)
    trained = run(whole, save_every=1, folder=tmp_path, **limits)
    torch.manual_seed(1)
    resumed = Net(lr=1e-2, **options)
    again = run(resumed, tmp_path / f"step={saved_at}.ckpt", **limits)
    assert trained.global_step == again.global_step == 4 * BATCHES // accumulate
    for (name, expected), got in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, got), name
    states = [trainer.optimizers[0].state_dict() for trainer in (trained, again)]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=0, atol=0)
    assert states[0]["param_groups"] == states[1]["param_groups"]


def lines(caplog):
    return [record.message for record in caplog.records if record.message.startswith("ckpt_path")]


@pytest.mark.filterwarnings("ignore:total_steps is 6 in the checkpoint and 12 in this run")
def test_options_that_differ_from_the_checkpoints_are_said_with_which_are_taken(tmp_path, caplog):
    first = dict(lr=1e-2, weight_decay=0.1, eps=1e-8, warmup=2, schedule="cosine")
    run(Net(**first), save_every=6, folder=tmp_path, max_epochs=1)
    second = dict(lr=1e-3, weight_decay=0.2, eps=1e-8, warmup=3, schedule="cosine")
    with caplog.at_level(logging.INFO):
        trainer = run(Net(**second), tmp_path / "step=6.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert lines(caplog) == [
        f"ckpt_path: {what} in the config; the checkpoint's is taken"
        for what in (
            "AdaBelief/decayed's lr is 0.01 in the checkpoint and 0.001",
            "AdaBelief/decayed's weight_decay is 0.1 in the checkpoint and 0.2",
            "AdaBelief/decayed's warmup is 2 in the checkpoint and 3",
            "AdaBelief/decayed's total_steps is 6 in the checkpoint and 12",
            "AdaBelief/undecayed's lr is 0.01 in the checkpoint and 0.001",
            "AdaBelief/undecayed's warmup is 2 in the checkpoint and 3",
            "AdaBelief/undecayed's total_steps is 6 in the checkpoint and 12",
            "CosineAfterWarmup's hold is 2 in the checkpoint and 3",
            "CosineAfterWarmup's length is 4 in the checkpoint and 9",
        )
    ]
    assert trainer.optimizers[0].param_groups[0]["eps"] == 1e-8
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == 1e-2


GROUPINGS = [
    (dict(), "decayed (2 parameters), undecayed (6 parameters) in the checkpoint, unnamed (8 parameters) here"),
    (
        dict(weight_decay=0.1, layers={"network.0.*": {"lr": 1e-4}}),
        "here. configure_adabelief groups by weight_decay (0, or more), decay_embeddings, layers and layer_decay",
    ),
]


@pytest.mark.parametrize(("second", "message"), GROUPINGS, ids=["no decay", "layers"])
def test_param_groups_that_differ_are_named_with_the_options_they_come_of(second, message, tmp_path):
    run(Net(weight_decay=0.1), save_every=6, folder=tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match=re.escape(message)):
        run(Net(**second), tmp_path / "step=6.ckpt", max_epochs=2)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_a_run_that_is_made_longer_on_resuming_has_its_schedule_laid_over_the_longer_run(schedule, tmp_path, caplog):
    run(Net(lr=1.0, schedule=schedule, warmup=0.25), save_every=6, folder=tmp_path, max_epochs=2)
    saved = torch.load(tmp_path / "step=6.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"]
    with caplog.at_level(logging.INFO):
        resumed = Recording(lr=1.0, schedule=schedule, warmup=0.25)
        trainer = run(resumed, tmp_path / "step=6.ckpt", max_epochs=4)
    assert "laid over 24 steps" in caplog.text
    assert len(resumed.lrs) == 18 and resumed.lrs[0] == saved and resumed.lrs[-1] > 1e-3
    assert resumed.lrs == sorted(resumed.lrs, reverse=True)
    end = 0.1 if schedule == "step" else 0.0
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_longer_total_steps_given_on_resuming_is_warned_of_once(schedule, tmp_path):
    run(Net(schedule=schedule, warmup=0.5, total_steps=12), save_every=6, folder=tmp_path, max_epochs=2)
    with pytest.warns(UserWarning, match="total_steps") as said:
        longer = Net(schedule=schedule, warmup=0.5, total_steps=24)
        trainer = run(longer, tmp_path / "step=6.ckpt", max_epochs=4)
    (warning,) = [str(warning.message) for warning in said if "total_steps" in str(warning.message)]
    assert "total_steps is 12 in the checkpoint and 24 in this run: lr stays 0 from step 12 on" in warning
    assert "give total_steps=24 to the first run" in warning
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_what_does_not_differ_is_not_spoken_of(schedule, tmp_path, caplog):
    options = dict(lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9), schedule=schedule)
    run(Net(**options), save_every=8, folder=tmp_path, max_epochs=2)
    with caplog.at_level(logging.INFO):
        run(Net(**options), max_epochs=2, callbacks=[ResumeReport()])
        run(Net(**options), tmp_path / "step=8.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert lines(caplog) == []


def constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


KINDS = [
    (
        dict(schedule="cosine"),
        dict(schedule="linear"),
        "of eta_min, hold, length, T_max in the checkpoint and LinearAf",
    ),
    (
        dict(schedule="step"),
        dict(schedule=constant),
        "of gamma, milestones in the checkpoint and ConstantLR, of factor",
    ),
    (
        dict(schedule="step"),
        dict(),
        "there is a schedule in the checkpoint, of gamma, milestones, and none in the conf",
    ),
    (dict(), dict(schedule=constant), "there is no schedule in the checkpoint, and ConstantLR in the config"),
]


@pytest.mark.parametrize(("first", "second", "said"), KINDS, ids=[said for _, _, said in KINDS])
def test_a_schedule_of_another_kind_is_said_with_the_lr_that_goes_on(first, second, said, tmp_path, caplog):
    run(Net(lr=1.0, **first), save_every=10, folder=tmp_path, max_epochs=2)
    with caplog.at_level(logging.INFO):
        run(Net(lr=1.0, **second), tmp_path / "step=10.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    (line,) = [line for line in lines(caplog) if "goes on" in line]
    saved = torch.load(tmp_path / "step=10.ckpt", weights_only=True)
    lr = saved["optimizer_states"][0]["param_groups"][0]["lr"]
    assert said in line and line.endswith(f"the config's is taken, and lr goes on from the checkpoint's, {lr}")


def test_where_no_schedule_drives_it_lr_is_the_one_that_is_taken(tmp_path, caplog):
    run(Net(lr=1.0, schedule="step"), save_every=10, folder=tmp_path, max_epochs=2)
    with caplog.at_level(logging.INFO):
        run(Net(lr=0.5), tmp_path / "step=10.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert "ckpt_path: AdaBelief's lr is 0.1 in the checkpoint and 0.5 in the config; the checkpoint's is taken" in (
        lines(caplog)
    )


class OfMilestones(Net):
    def configure_optimizers(self):
        optimizer = AdaBelief(self.named_parameters(), lr=torch.tensor(self.options["lr"]))
        steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, self.options["milestones"])
        held = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        return [optimizer], [torch.optim.lr_scheduler.SequentialLR(optimizer, [held, steps], milestones=[1])]


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # by torch 2.6's own SequentialLR
def test_schedules_made_of_others_and_tensor_learning_rates_are_compared_too(tmp_path, caplog):
    run(OfMilestones(lr=0.5, milestones=[3, 5]), max_epochs=1).save_checkpoint(tmp_path / "saved.ckpt")
    with caplog.at_level(logging.INFO):
        module = OfMilestones(lr=0.25, milestones=[3, 6])
        run(module, tmp_path / "saved.ckpt", max_epochs=2, callbacks=[ResumeReport()])
    assert "AdaBelief's lr is 0.5 in the checkpoint and 0.25" in lines(caplog)[0]
    assert "MultiStepLR 2's milestones is" in lines(caplog)[1] and len(lines(caplog)) == 2
