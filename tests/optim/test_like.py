"""AdaBelief.like: the AdaBelief that differs from an Adam, AdamW or RAdam in belief alone."""

import copy
import doctest
import sys

import pytest
import timm.optim
import torch

from lightning_adabelief import AdaBelief
from tests.optim.test_switch import WEIGHTS, noisy_gradients, rms

STEPS = 400
KINDS = [
    (torch.optim.Adam, {}, False),
    (torch.optim.AdamW, {}, True),
    (torch.optim.RAdam, {}, False),
    (torch.optim.RAdam, dict(decoupled_weight_decay=True), True),
]


def two_groups():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    groups = [
        {"params": list(model[0].named_parameters()), "lr": 1e-2, "name": "first", "betas": (0.8, 0.99)},
        {"params": list(model[1].named_parameters()), "weight_decay": 0.3, "eps": 1e-4, "note": "own"},
    ]
    return model, groups


def train(model, optimizer, steps=5):
    for t in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(t))
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(("kind", "options", "decoupled"), KINDS)
def test_groups_names_and_options_are_the_same(kind, options, decoupled):
    model, groups = two_groups()
    theirs = kind(groups, lr=3e-3, weight_decay=0.1, maximize=True, foreach=True, **options)
    torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
    ours = AdaBelief.like(theirs)
    assert [p for group in ours.param_groups for p in group["params"]] == list(model.parameters())
    first, second = ours.param_groups
    assert (first["lr"], first["betas"], first["name"], first["weight_decay"]) == (1e-2, (0.8, 0.99), "first", 0.1)
    assert (second["lr"], second["weight_decay"], second["note"], second["initial_lr"]) == (3e-3, 0.3, "own", 3e-3)
    assert (first["eps"], second["eps"]) == pytest.approx((1e-16 * (1 - 0.99), 1e-8 * (1 - 0.999)))
    assert [group["param_names"] for group in ours.param_groups] == [g["param_names"] for g in theirs.param_groups]
    for group in ours.param_groups:
        assert group["weight_decouple"] is decoupled and group["maximize"] and group["foreach"]
        assert group["rectify"] is (kind is torch.optim.RAdam) and group["residual"] == "updated"
        assert group["warmup"] == 0 and not group["fixed_decay"]
    ours.add_param_group({"params": [("late", torch.nn.Parameter(torch.ones(2)))]})
    assert (ours.param_groups[2]["weight_decay"], ours.param_groups[2]["weight_decouple"]) == (0.1, decoupled)


def test_an_adam_that_decays_as_adamw_does_is_seen_as_such():
    if "decoupled_weight_decay" not in torch.optim.Adam([torch.ones(1)]).defaults:
        pytest.skip("an option of newer versions of torch")
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], decoupled_weight_decay=True, amsgrad=True)
    (group,) = AdaBelief.like(theirs).param_groups
    assert group["weight_decouple"] and group["amsgrad"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_fused_is_kept_where_it_can_serve(dtype):
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], fused=True)
    theirs.param_groups[0]["params"] = [param]
    assert AdaBelief.like(theirs).implementations == ["fused" if dtype == torch.float32 else "forloop"]


def test_zero_beta1_has_the_previous_residual():
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], betas=(0.0, 0.9))
    assert AdaBelief.like(theirs).param_groups[0]["residual"] == "previous"


def test_a_tensor_lr_stays_a_tensor_of_ones_own():
    lr = torch.tensor(0.01)
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=lr)
    for match_noise, expected in ((False, 0.01), (True, 0.01 * 0.9 * (2 / 1.9) ** 0.5)):
        (group,) = AdaBelief.like(theirs, match_noise).param_groups
        assert group["lr"] is not lr and group["lr"].item() == pytest.approx(expected)
    assert lr == 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "options", "decoupled"), KINDS)
def test_the_state_is_gone_on_from_and_the_other_optimizer_left_as_it_is(kind, options, decoupled, dtype):
    model, groups = two_groups()
    theirs = kind([{**group, "params": [p.data.to(dtype) for _, p in group["params"]]} for group in groups], **options)
    for _ in range(5):
        for group in theirs.param_groups:
            for param in group["params"]:
                param.grad = torch.randn_like(param)
        theirs.step()
    before = copy.deepcopy(theirs.state_dict())
    ours = AdaBelief.like(theirs)
    for group in ours.param_groups:
        for param in group["params"]:
            state = ours.state[param]
            assert state["step"] == 5 and state["exp_avg"].dtype == state["exp_avg_var"].dtype == torch.float32
            assert torch.equal(state["exp_avg"], theirs.state[param]["exp_avg"].float())
            assert 0 < (state["exp_avg_var"] / theirs.state[param]["exp_avg_sq"].float()).min()
    ours.step()
    assert repr(theirs.state_dict()) == repr(before)


def test_a_parameter_without_state_starts_at_step_1():
    model, groups = two_groups()
    theirs = torch.optim.Adam(groups)
    for param in model[0].parameters():
        param.requires_grad_(False)
    train(model, theirs)
    for param in model[0].parameters():
        param.requires_grad_(True)
    ours = AdaBelief.like(theirs)
    train(model, ours, steps=1)
    assert [int(ours.state[param]["step"]) for param in model.parameters()] == [1, 1, 6, 6]


@pytest.mark.parametrize("adam_eps", [1e-5, 1e-3])
def test_where_eps_decides_both_take_the_same_steps(adam_eps):
    grads = [1e-5 * adam_eps * grad for grad in noisy_gradients("mean as large as noise", STEPS)]
    theirs, ours = updates_side_by_side(grads, betas=(0.9, 0.99), eps=adam_eps)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def updates_side_by_side(grads, match_noise=False, kind=torch.optim.Adam, start=0.0, **options):
    """Return the last updates of an Adam and of the AdaBelief like it."""
    params = [torch.nn.Parameter(torch.full((WEIGHTS,), start, dtype=torch.float64)) for _ in range(2)]
    adam, same = (kind([param], **{"lr": 1.0, "weight_decay": 0.0} | options) for param in params)
    optimizers = [adam, AdaBelief.like(same, match_noise=match_noise)]
    for grad in grads:
        before = [param.detach().clone() for param in params]
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = grad.clone()
            optimizer.step()
    return [was - param.detach() for was, param in zip(before, params, strict=True)]


@pytest.mark.parametrize("beta1", [0.9, 0.5, 0.0])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RAdam])
def test_matched_to_noise_both_move_as_far_on_pure_noise(kind, beta1):
    grads = noisy_gradients("pure noise", STEPS)
    theirs, ours = updates_side_by_side(grads, match_noise=True, kind=kind, betas=(beta1, 0.99))
    assert rms(ours) == pytest.approx(rms(theirs), rel=0.01)
    theirs, ours = updates_side_by_side(grads, kind=kind, betas=(beta1, 0.99))
    unmatched = ((1 + beta1) / 2) ** 0.5 / (beta1 or 1)
    assert rms(ours) / rms(theirs) == pytest.approx(unmatched, rel=0.01)


@pytest.mark.parametrize("match_noise", [False, True])
def test_decoupled_weight_decay_shrinks_weights_as_it_did(match_noise):
    options = dict(betas=(0.5, 0.99), weight_decay=0.1, lr=0.01)
    no_gradients = [torch.zeros(WEIGHTS, dtype=torch.float64)] * 3
    theirs, ours = updates_side_by_side(no_gradients, match_noise, torch.optim.AdamW, start=5.0, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    assert theirs.min() == pytest.approx(5.0 * 0.999**2 * 0.001)


@pytest.mark.parametrize("match_noise", [False, True])
def test_coupled_weight_decay_is_added_to_the_gradient_as_it_was(match_noise):
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], weight_decay=0.1)
    (group,) = AdaBelief.like(adam, match_noise).param_groups
    assert (group["weight_decay"], group["weight_decouple"]) == (0.1, False)


@pytest.mark.parametrize(
    "other", [torch.optim.NAdam, torch.optim.SGD, torch.optim.RMSprop, timm.optim.Lion, AdaBelief], ids=str
)
def test_any_other_optimizer_is_refused_by_name(other):
    with pytest.raises(ValueError, match=rf"given a {other.__name__}, .*Give a torch.optim.Adam, AdamW or RAdam"):
        AdaBelief.like(other([torch.nn.Parameter(torch.ones(1))], lr=1e-3))


def test_the_example_in_the_docstring_runs():
    module = sys.modules[AdaBelief.__module__]
    (test,) = [t for t in doctest.DocTestFinder().find(AdaBelief.like, "like", module=module) if t.examples]
    assert doctest.DocTestRunner().run(test).failed == 0
