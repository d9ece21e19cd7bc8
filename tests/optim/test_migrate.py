"""Checkpoints of other optimizers: the run goes on as it would have where it came from."""

import copy
import io
import warnings

import pytest
import pytorch_optimizer
import timm.optim
import torch

from lightning_adabelief import AdaBelief
from tests.optim.reference import assert_close, gradients, original, run

SHAPES = [(3, 4), (5,), ()]
START = [
    torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4),
    torch.ones(5).double(),
    torch.tensor(0.3).double(),
]
GRADS = gradients(60, SHAPES)
BEFORE, AFTER = GRADS[:25], GRADS[25:]

OPTIONS = [
    dict(),
    dict(rectify=False),
    dict(rectify=False, amsgrad=True, betas=(0.8, 0.99)),
    dict(weight_decay=0.1, weight_decouple=False, eps=1e-8),
    dict(weight_decay=1e-3, fixed_decay=True, lr=3e-3),
]


def timms(params, weight_decouple=True, **options):
    return timm.optim.AdaBelief(params, decoupled_decay=weight_decouple, **options)


def pytorch_optimizers(params, amsgrad=False, rectify=True, **options):
    return pytorch_optimizer.AdaBelief(params, ams_bound=amsgrad, rectify=rectify, **options)


ORIGINS = {
    "adabelief-pytorch": original,  # its other releases: test_versions.py
    "timm": timms,
    "pytorch-optimizer": pytorch_optimizers,
}


def loading(checkpoint, **options):
    """What makes an AdaBelief that has loaded the checkpoint, and asserts that it said so once, here."""

    def make(params):
        optimizer = AdaBelief(params, **options)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            optimizer.load_state_dict(checkpoint)
        (message,) = said
        assert message.category is UserWarning and message.filename == __file__
        make.said = str(message.message)
        return optimizer

    return make


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("theirs", ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("foreach", [False, True])
def test_a_run_goes_on_as_it_would_have(theirs, options, foreach):
    # The original's options stay with its constructor: the user gives them again. The others' are in the checkpoint.
    from_user = options if theirs is original else {}
    half, optimizer = run(lambda p: theirs(p, **options), BEFORE, START)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    straight, _ = run(lambda p: theirs(p, **options), GRADS, START)
    make = loading(checkpoint, **from_user, foreach=foreach)
    ours, our_optimizer = run(make, AFTER, [p.detach() for p in half])
    assert_close(ours, straight, rtol=1e-12)
    assert all(our_optimizer.state[p]["step"] == len(GRADS) for p in ours)
    assert our_optimizer.param_groups[0]["foreach"] == foreach


@pytest.mark.parametrize("theirs", ORIGINS.values(), ids=ORIGINS)
def test_what_was_loaded_is_saved_as_ones_own_and_loads_silently(theirs):
    half, optimizer = run(theirs, BEFORE, START)
    loaded = loading(optimizer.state_dict())(half)
    twin = AdaBelief(half)
    assert loaded.param_groups[0].keys() == twin.param_groups[0].keys()
    file = io.BytesIO()
    torch.save(loaded.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))  # a warning would be an error
    assert repr(twin) == repr(loaded)


def test_the_warning_says_what_came_from_where():
    half, optimizer = run(timms, BEFORE, START)
    make = loading(optimizer.state_dict())
    make(half)
    assert "checkpoint of timm's AdaBelief" in make.said and "decoupled_decay is weight_decouple here" in make.said
    assert "amsgrad, betas, degenerated_to_sgd, eps, fixed_decay, lr, rectify, weight_decay, weight_decouple come" in (
        make.said
    )


def test_a_checkpoint_is_left_as_it_is():
    _, optimizer = run(pytorch_optimizers, BEFORE, START)
    checkpoint = optimizer.state_dict()
    kept = copy.deepcopy(checkpoint)
    loading(checkpoint)([torch.nn.Parameter(value.clone()) for value in START])
    assert repr(checkpoint) == repr(kept)


def elementwise_estimate(m, v, steps, betas):
    """s_t of each weight by the formula alone, one weight at a time, for the updated residual."""
    m, v = m / (1 - betas[0] ** steps), v / (1 - betas[1] ** steps)
    of_tensor = max(betas[0] * (1 - (m * m).sum() / v.sum()), betas[0] ** 2 * (1 - betas[1]) / (1 - betas[1] ** steps))
    at_most = 2 * betas[0] ** 2 / (1 + betas[0])
    estimate = [
        min(max(betas[0] * (y - x * x), of_tensor * y), at_most * y)
        for x, y in zip(m.view(-1), v.view(-1), strict=True)
    ]
    return torch.stack(estimate).reshape(m.shape) * (1 - betas[1] ** steps)


@pytest.mark.parametrize("adam", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adams_moments_become_the_scatter_of_the_gradients(adam, amsgrad):
    options = dict(lr=2e-3, betas=(0.8, 0.9), amsgrad=amsgrad)
    half, optimizer = run(lambda p: adam(p, **options), BEFORE, START)
    make = loading(optimizer.state_dict(), eps=1e-6)
    ours = make(half)
    assert "Adam" in make.said and "s_t is estimated from the scatter of its gradients" in make.said
    steps, bounded = len(BEFORE), 0
    for param in half:
        theirs, state = optimizer.state[param], ours.state[param]
        expected = elementwise_estimate(theirs["exp_avg"], theirs["exp_avg_sq"], steps, (0.8, 0.9))
        accumulated_eps = 1e-6 * (1 - 0.9**steps) / (1 - 0.9)
        torch.testing.assert_close(state["exp_avg_var"], expected + accumulated_eps)
        of_weight = 0.8 * (theirs["exp_avg_sq"] - theirs["exp_avg"] ** 2 * (1 - 0.9**steps) / (1 - 0.8**steps) ** 2)
        bounded += (~torch.isclose(expected, of_weight)).sum()
        assert torch.equal(state["exp_avg"], theirs["exp_avg"]) and state["step"] == steps
        assert ("max_exp_avg_var" in state) == amsgrad
        if amsgrad:
            largest = expected * theirs["max_exp_avg_sq"] / theirs["exp_avg_sq"]
            torch.testing.assert_close(state["max_exp_avg_var"], largest + accumulated_eps)
    assert 0 < bounded < sum(param.numel() for param in half)
    group = ours.param_groups[0]
    assert (group["lr"], group["betas"], group["amsgrad"], group["eps"]) == (2e-3, (0.8, 0.9), amsgrad, 1e-6)


@pytest.mark.parametrize("steps", [1, 10, 100, 2000])
def test_the_first_step_after_adam_is_bounded_however_much_gradients_agreed(steps):
    agreeing = [[torch.ones(3).double(), torch.full((3,), 1e-4).double()]] * steps
    half, optimizer = run(lambda p: torch.optim.Adam(p, lr=1e-3), agreeing, [torch.zeros(3).double()] * 2)
    make = loading(optimizer.state_dict(), rectify=False)
    ours = make(half)
    before = [param.detach().clone() for param in half]
    for param, grad in zip(half, agreeing[0], strict=True):
        param.grad = grad.clone()
    ours.step()
    for param, was in zip(half, before, strict=True):
        assert 0 < (was - param).max() <= 1e-3 * 1.05 / (0.9 * (1 - 0.999) ** 0.5)


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.9, 1.0)])
def test_options_of_a_checkpoint_are_checked(betas):
    params = [torch.nn.Parameter(value.clone()) for value in START]
    checkpoint = torch.optim.Adam(params).state_dict()
    checkpoint["param_groups"][0]["betas"] = betas
    optimizer = AdaBelief(params)
    with pytest.raises(ValueError, match="residual='previous'|index 1: 1.0"):
        optimizer.load_state_dict(checkpoint)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_checkpoint_without_state_gives_its_options():
    fresh = [torch.nn.Parameter(value.clone()) for value in START]
    checkpoint = timms(fresh, lr=0.5).state_dict()
    assert loading(checkpoint)(fresh).param_groups[0]["lr"] == 0.5


OTHERS = [
    lambda p: torch.optim.SGD(p, momentum=0.9),
    lambda p: torch.optim.SGD(p),
    torch.optim.RMSprop,
    torch.optim.NAdam,
    torch.optim.Adamax,
    timm.optim.Lion,
    timm.optim.Adan,
    lambda p: pytorch_optimizer.AdaBelief(p, adanorm=True),
]


@pytest.mark.parametrize("make", OTHERS)
def test_any_other_is_refused_with_the_keys_found_and_changes_nothing(make):
    half, theirs = run(make, BEFORE[:8], START)
    optimizer = AdaBelief(half)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="Cannot load this optimizer state") as error:
        optimizer.load_state_dict(theirs.state_dict())
    found = [*theirs.state_dict()["param_groups"][0], *next(iter(theirs.state.values()), {})]
    assert all(f"'{key}'" in str(error.value) for key in found)
    assert repr(optimizer.state_dict()) == repr(before)
