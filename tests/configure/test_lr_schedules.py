"""The schedule, and the warmup that multiplies it."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from lightning_adabelief import configure_adabelief
from lightning_adabelief.optim.scaling import warmup_factor
from tests.configure.nets import Net, Recording, fit


def lrs(max_epochs=2, **options):
    module = Recording(lr=1.0, **options)
    fit(module, max_epochs=max_epochs)
    return module.lrs


def test_cosine_is_held_for_the_warmup_and_then_torchs_own_to_the_end_of_the_run():
    param = torch.nn.Parameter(torch.ones(()))
    reference = torch.optim.SGD([param], lr=1.0)
    scheduler = CosineAnnealingLR(reference, T_max=9)
    expected = [1.0] * 3
    for _ in range(9):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        scheduler.step()
    assert lrs(schedule="cosine", warmup=0.25) == expected


def test_linear_is_held_for_the_warmup_and_then_a_line_to_the_end_of_the_run():
    assert lrs(schedule="linear", warmup=3) == pytest.approx([1.0] * 3 + [1 - k / 9 for k in range(9)])


def test_lr_is_held_for_the_longest_warmup_of_a_layer():
    layers = {"network.3.*": {"warmup": 0.5}, "network.0.*": {"warmup": 2}}
    assert lrs(schedule="linear", warmup=3, layers=layers) == pytest.approx([1.0] * 6 + [1 - k / 6 for k in range(6)])


def test_step_is_a_tenth_after_three_quarters_of_the_run():
    assert lrs(schedule="step") == pytest.approx([1.0] * 9 + [0.1] * 3)


def test_without_a_warmup_the_schedule_begins_at_once():
    expected = [(1 + math.cos(math.pi * k / 12)) / 2 for k in range(12)]
    assert lrs(schedule="cosine", warmup=0) == pytest.approx(expected)


def test_a_schedule_over_more_than_its_run_stays_where_it_ended():
    assert lrs(schedule="linear", total_steps=6)[6:] == [0.0] * 6
    assert lrs(schedule="cosine", warmup=2, total_steps=8)[8:] == pytest.approx([0.0] * 4)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_a_run_of_one_step_has_a_schedule(schedule):
    assert lrs(schedule=schedule, warmup=0.5, max_epochs=1, total_steps=1)[0] == 1.0


def test_the_warmup_multiplies_what_the_schedule_set():
    # One weight, SGD-like: rectify off and beta2 of a constant gradient make steps proportional to lr.
    model = torch.nn.Linear(1, 1, bias=False)
    setup = configure_adabelief(
        model, lr=1.0, betas=(0.9, 0.9), eps=1e4, rectify=False, warmup=4, schedule="linear", total_steps=8, fused=False
    )
    optimizer, scheduler = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    for step in range(1, 9):
        before, group = model.weight.item(), optimizer.param_groups[0]
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        state = optimizer.state[model.weight]
        corrected = state["exp_avg_var"].double() / (1 - 0.9**step)
        whole = (state["exp_avg"] / (1 - 0.9**step) / (corrected.sqrt() + 1e4)).item()
        factor = warmup_factor(step, 4) * (1.0 if step <= 5 else 1 - (step - 5) / 4)
        assert before - model.weight.item() == pytest.approx(factor * whole, rel=2e-3)
        assert group["lr"] == pytest.approx(factor / warmup_factor(step, 4))
        scheduler.step()


def test_layers_keep_their_proportion_through_the_schedule():
    optimizer = fit(Net(lr=1.0, layers={"network.0.*": {"lr": 0.1}}, schedule="cosine", total_steps=20), max_epochs=2)
    other, layer = optimizer.param_groups
    assert other["lr"] < 0.5 and layer["lr"] == pytest.approx(0.1 * other["lr"])


def test_a_schedule_may_be_a_function_that_counts_steps_or_epochs():
    def halve(optimizer):
        return StepLR(optimizer, step_size=1, gamma=0.5)

    assert lrs(schedule=halve, schedule_interval="step", max_epochs=1) == [0.5**k for k in range(6)]
    assert lrs(schedule=halve) == lrs(schedule=halve, schedule_interval="epoch") == [1.0] * 6 + [0.5] * 6


def test_lightnings_plateau_schedule_brings_what_it_monitors():
    from pytorch_lightning.cli import ReduceLROnPlateau

    def plateau(optimizer):
        return ReduceLROnPlateau(optimizer, monitor="train/loss")

    config = configure_adabelief(Net(), schedule=plateau)["lr_scheduler"]
    assert (config["monitor"], config["interval"]) == ("train/loss", "epoch")
