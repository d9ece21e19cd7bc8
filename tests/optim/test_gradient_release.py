"""Gradient release: the same weights as the usual step, one gradient at a time, and a reason where it can't be."""

import gc
import weakref
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from lightning_adabelief import AdaBelief, release_gradients
from lightning_adabelief.optim import state as state_module

IMPLEMENTATIONS = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True),
}

OPTIONS = {
    "defaults": dict(),
    "amsgrad, coupled decay": dict(amsgrad=True, weight_decay=0.1, weight_decouple=False, rectify=False),
    "warmup, bound": dict(warmup=5, weight_decay=0.1, rectify=False, max_update_to_lr=1.0, residual="previous"),
    "stochastic rounding": dict(master_weight_bits=16, rectify=False),
}


class Net(nn.Module):
    """Odd sizes, a weight that is used three times, and one that is not used at all."""

    def __init__(self):
        super().__init__()
        self.inner, self.shared, self.head = nn.Linear(7, 13), nn.Linear(13, 13), nn.Linear(13, 1)
        self.norm, self.unused = nn.LayerNorm(13), nn.Linear(3, 3)

    def forward(self, x):
        hidden = self.norm(self.inner(x))
        for _ in range(3):
            hidden = self.shared(hidden).tanh()
        return self.head(hidden)


def make(dtype=torch.float32, **options):
    torch.manual_seed(1)
    model = Net().to(dtype)
    named = list(model.named_parameters())
    groups = [{"params": named[::2], "lr": 2e-2, "betas": (0.8, 0.99)}, {"params": named[1::2]}]
    return model, AdaBelief(groups, lr=1e-2, **options)


def loss_of(model, step=0):
    param = next(model.parameters())
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(step)).to(param.dtype)
    return model(x).square().mean()


def train(model, optimizer, steps=9):
    """Train with a schedule: each step has a learning rate of its own."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        schedule.step()


def numbers(model, optimizer):
    """All weights and states, by name."""
    found = {}
    for name, param in model.named_parameters():
        found |= {name: param.detach(), **{f"{name} {key}": value for key, value in optimizer.state[param].items()}}
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_weights_and_state_are_bit_for_bit_those_of_the_usual_step(implementation, options, dtype):
    usual, released = make(dtype, **implementation, **options), make(dtype, **implementation, **options)
    release_gradients(*released)
    with mock.patch.object(state_module, "_get_capturable_supported_devices", lambda: ["cpu"]):
        train(*usual)
        train(*released)
    assert_same(numbers(*usual), numbers(*released))


def test_one_gradient_at_a_time_is_held_and_none_after_the_backward_pass():
    model, optimizer = make()
    release = release_gradients(model, optimizer)
    held = []
    release.watch(lambda param, group: held.append([other for other in model.parameters() if other.grad is not None]))
    loss_of(model).backward()
    assert len(held) == 8 and all(len(params) == 1 for params in held)
    assert all(param.grad is None for param in model.parameters())


def test_a_weight_that_is_used_three_times_takes_one_step_and_an_unused_one_none():
    model, optimizer = make()
    release_gradients(model, optimizer)
    train(model, optimizer, steps=2)
    assert optimizer.state[model.shared.weight]["step"] == 2
    assert model.unused.weight not in optimizer.state


@pytest.mark.parametrize("backward_passes", ["accumulation", "a closure evaluated twice", "a retained graph"])
def test_a_second_backward_pass_before_the_step_is_an_error(backward_passes):
    model, optimizer = make()
    release_gradients(model, optimizer)

    def closure():
        for _ in range(2):
            loss_of(model).backward()

    with pytest.raises(RuntimeError, match="got a second gradient before optimizer.step|modified by an inplace"):
        if backward_passes == "accumulation":
            loss_of(model, step=1).backward()
            loss_of(model, step=2).backward()
        elif backward_passes == "a retained graph":
            loss = loss_of(model)
            loss.backward(retain_graph=True)
            loss.backward()
        else:
            optimizer.step(closure)


def test_the_error_names_the_parameter():
    model, optimizer = make()
    release_gradients(model, optimizer)
    loss_of(model).backward()
    with pytest.raises(RuntimeError, match=r"^head\.\w+ got a second gradient"):
        loss_of(model).backward()


def test_a_step_with_a_closure_begins_anew_after_a_backward_pass_that_failed():
    model, optimizer = make()
    release = release_gradients(model, optimizer)
    failing = release.watch(lambda param, group: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: loss_of(model).backward())
    failing.remove()
    optimizer.step(lambda: loss_of(model).backward())


def test_removed_the_step_has_the_gradients_again():
    usual, released = make(), make()
    release = release_gradients(*released)
    train(*released, steps=3)
    release.remove()
    train(*released, steps=3)
    for _ in range(2):
        train(*usual, steps=3)
    assert_same(numbers(*usual), numbers(*released))
    loss_of(released[0]).backward()
    assert released[0].head.weight.grad is not None


def test_a_new_optimizers_release_takes_the_parameters_over():
    model, first = make()
    release_gradients(model, first)
    train(model, first, steps=2)
    second = AdaBelief(model.parameters())
    release_gradients(model, second)
    train(model, second, steps=3)
    assert first.state[model.head.weight]["step"] == 2 and second.state[model.head.weight]["step"] == 3
    release_gradients(model, second)
    train(model, second, steps=1)
    assert second.state[model.head.weight]["step"] == 4


def test_a_loaded_state_goes_on_where_it_was():
    usual, released = make(), make()
    train(*usual, steps=6)
    train(*released, steps=3)
    model, optimizer = make()
    release_gradients(model, optimizer)
    model.load_state_dict(released[0].state_dict())
    optimizer.load_state_dict(released[1].state_dict())
    for step in range(3, 6):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
    assert_same(numbers(*usual), numbers(model, optimizer))


def test_a_parameter_that_is_unfrozen_or_added_later_takes_part():
    usual, released = make(), make()
    release_gradients(*released)
    for model, optimizer in (usual, released):
        model.inner.requires_grad_(False)
        model.late = nn.Parameter(torch.ones(()))
        train(model, optimizer, steps=2)
        model.inner.requires_grad_(True)
        optimizer.add_param_group({"params": [("late", model.late)], "lr": 0.1})
        for step in range(3):
            optimizer.zero_grad()
            (loss_of(model, step) * model.late).backward()
            optimizer.step()
    assert_same(numbers(*usual), numbers(*released))
    assert usual[1].state[usual[0].late]["step"] == 3
    (loss_of(released[0]) * released[0].late).backward()
    assert released[0].late.grad is None and released[0].inner.weight.grad is None


def test_a_gradient_that_no_backward_pass_brought_is_taken_by_the_step():
    model, optimizer = make()
    release_gradients(model, optimizer)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    optimizer.step()
    assert optimizer.state[model.head.weight]["step"] == 1


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_what_looks_at_all_gradients_first_is_refused_with_the_reason(nonfinite):
    with pytest.raises(ValueError, match=f"nonfinite='{nonfinite}' looks at all gradients before the first weight"):
        release_gradients(*make(nonfinite=nonfinite))
    model, optimizer = make()
    release_gradients(model, optimizer)
    optimizer.param_groups[1]["nonfinite"] = nonfinite
    with pytest.raises(ValueError, match="leave nonfinite out"):
        optimizer.step(lambda: loss_of(model).backward())


def test_a_differentiable_step_and_another_optimizer_are_refused():
    with pytest.raises(ValueError, match="differentiable=True has autograd go through the step"):
        release_gradients(*make(differentiable=True))
    model = Net()
    with pytest.raises(ValueError, match="got SGD"):
        release_gradients(model, torch.optim.SGD(model.parameters()))


@pytest.mark.parametrize("wraps", [False, True], ids=["two ranks", "DistributedDataParallel"])
def test_gradients_that_are_added_up_over_ranks_are_refused(wraps):
    torch.distributed.init_process_group("fake", rank=0, world_size=1 if wraps else 2, store=FakeStore())
    try:
        model, optimizer = make()
        model = DistributedDataParallel(model) if wraps else model
        with pytest.raises(ValueError, match="has a DistributedDataParallel" if wraps else "has 2 ranks"):
            release_gradients(model, optimizer)
    finally:
        torch.distributed.destroy_process_group()


def test_model_and_optimizer_are_collected_once_nobody_holds_them():
    model, optimizer = make()
    release = release_gradients(model, optimizer)
    train(model, optimizer, steps=1)
    held = [weakref.ref(thing) for thing in (model, optimizer, release)]
    del model, optimizer, release
    gc.collect()
    assert [reference() for reference in held] == [None, None, None]


def test_an_optimizer_that_is_gone_leaves_the_gradients_alone():
    model, optimizer = make()
    release_gradients(model, optimizer)
    del optimizer
    gc.collect()
    loss_of(model).backward()
    assert model.head.weight.grad is not None
