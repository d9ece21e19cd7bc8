"""The statistics against their definitions, computed directly in float64."""

import importlib
import math
import sys
from functools import partial

import numpy as np
import pytest
import torch

from lightning_adabelief import AdaBelief, beliefs
from lightning_adabelief.beliefs.elementwise import (
    WeightBeliefs,
    belief_scale,
    effective_step_size,
    eps_share,
    step_gain_over_adam,
    weight_beliefs,
)
from lightning_adabelief.beliefs.measure import add_up, measure_columns, read_layers, to_statistics
from lightning_adabelief.beliefs.sample import SAMPLE
from lightning_adabelief.beliefs.statistic import BY_NAME, STATE_STATISTICS
from lightning_adabelief.optim.scaling import rectification
from tests.optim.reference import gradients, run

START = [torch.linspace(-1, 1, 35).double().reshape(5, 7)]

CASES = {
    "plain": dict(rectify=False),
    "rectified": dict(),
    "eps is much of it": dict(eps=1e-4),
    "amsgrad": dict(amsgrad=True),
    "warmup": dict(warmup=200),
    "previous": dict(residual="previous", betas=(0.0, 0.9)),
    "decay": dict(weight_decay=0.1),
    "bounded": dict(max_update_to_lr=0.2, warmup=200, rectify=False),
    "bounded with decay": dict(max_update_to_lr=0.2, weight_decay=0.1, rectify=False),
}


def trained(steps=60, dtype=torch.float64, **options):
    grads = gradients(steps, [START[0].shape], dtype=dtype)
    (param,), optimizer = run(lambda p: AdaBelief(p, lr=1e-2, **options), grads, [START[0].to(dtype)])
    return param, optimizer.state[param], optimizer.param_groups[0]


def directly(param, grad, state, group, steps):
    """All statistics by the book, in NumPy float64 (torch's median is the lower of the middle two)."""
    b1, b2 = group["betas"]
    m, s = state["exp_avg"].double().numpy(), state["exp_avg_var"].double().numpy()
    divisor = state["max_exp_avg_var"].double().numpy() if group["amsgrad"] else s
    m_hat, s_hat = m / (1 - b1**steps), s / (1 - b2**steps)
    lr = group["lr"] * min(1, steps / group["warmup"]) if group["warmup"] else group["lr"]
    if group["rectify"]:
        size = lr * rectification(steps, b2) * math.sqrt(1 - b2**steps) / (np.sqrt(divisor) + group["eps"])
    else:
        size = lr / (np.sqrt(divisor / (1 - b2**steps)) + group["eps"])
    # the part of s that is eps, accumulated one step at a time
    accumulated = 0.0
    for _ in range(steps):
        accumulated = b2 * accumulated + group["eps"]
    weight = param.detach().double().numpy()
    decay = lr * group["weight_decay"]
    bound = math.inf if group["max_update_to_lr"] is None else lr * group["max_update_to_lr"]
    moved = np.clip(size * m_hat, -bound, bound)
    update = (weight + moved) / (1 - decay) - weight  # the weight before the step, less the weight
    variance = (s - accumulated) / (1 - b2**steps)
    square = m_hat**2 + (variance / b1 if group["residual"] == "updated" else variance * b1)
    return {
        "s_t": s_hat.mean(),
        "effective_step_size": np.quantile(size, 0.5, method="lower"),
        "step_gain_over_adam": np.sqrt((square / s_hat).mean()),
        "eps_share": (accumulated / s).mean(),
        "update_to_weight": np.linalg.norm(update) / np.linalg.norm(weight),
        "grad_norm": np.linalg.norm(grad.double().numpy()),
        "update_norm": np.linalg.norm(update),
        "grad_momentum_cosine": cosine(
            grad.double().numpy(), (m - (1 - b1) * grad.double().numpy()) / b1 if b1 else 0 * m
        ),
    }


def cosine(x, y):
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return (x * y).sum() / norms if norms else math.nan


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_layer_statistics_are_their_definitions(options, dtype):
    param, state, group = trained(dtype=dtype, **options)
    (measured,) = to_statistics(measure_columns([(param, state, group)]))
    expected = directly(param, param.grad, state, group, 60)
    assert expected.keys() == {row.name for row in STATE_STATISTICS}
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name


@pytest.mark.parametrize(
    "options", [dict(weight_decay=0.1), dict(weight_decay=0.01, fixed_decay=True), dict(warmup=200, weight_decay=1.0)]
)
def test_the_norm_of_the_update_counts_decoupled_decay_in(options):
    before, _, _ = trained(59, **options)
    after, state, group = trained(60, **options)
    (measured,) = to_statistics(measure_columns([(after, state, group)]))
    assert measured["update_norm"] == pytest.approx((before - after).norm().item(), rel=1e-9)


def test_the_norm_of_an_adamws_update_counts_decay_in():
    model = torch.nn.Linear(40, 30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    for _ in range(5):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.randn(8, 40)).square().mean().backward()
        optimizer.step()
    moved = (before - model.weight.detach()).norm().item()
    assert beliefs.measure(optimizer, model).layers["weight"]["update_norm"] == pytest.approx(moved, rel=1e-5)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_the_update_is_what_the_optimizer_did(options):
    options = options | dict(weight_decay=0.0, max_update_to_lr=None)
    before, _, _ = trained(59, **options)
    after, state, group = trained(60, **options)
    weights = weight_beliefs(after, state, group)
    update = effective_step_size(weights) * weights.trend
    torch.testing.assert_close(update, (before - after).detach(), rtol=1e-9, atol=0)


def test_in_a_step_of_sgd_the_effective_step_size_is_lr_and_in_none_it_is_0():
    _, state, group = trained(3)
    for degenerated_to_sgd, expected in ((True, 0.01), (False, 0.0)):
        scale = belief_scale(state, group | dict(degenerated_to_sgd=degenerated_to_sgd))
        weights = WeightBeliefs(torch.rand(4), torch.rand(4), torch.rand(4), scale)
        assert effective_step_size(weights).tolist() == pytest.approx([expected] * 4)


def side_by_side(mean, noise, *, steps=4000, **options):
    """An AdaBelief and an Adam on the same gradients, whose scale is ``noise`` and ``mean`` weight by weight."""
    noise, mean = torch.broadcast_tensors(torch.as_tensor(noise), torch.as_tensor(mean))
    noise, mean = noise.double(), mean.double()
    adam_options = {name: options[name] for name in ("betas",) if name in options}
    kinds = (partial(AdaBelief, rectify=False, **options), partial(torch.optim.Adam, eps=0.0, **adam_options))
    params = [torch.nn.Parameter(torch.zeros_like(noise)) for _ in kinds]
    optimizers = [kind([param], lr=1e-3) for kind, param in zip(kinds, params, strict=True)]
    generator = torch.Generator().manual_seed(0)
    gains = []
    for step in range(steps):
        grad = mean + noise * torch.randn(noise.shape, generator=generator, dtype=torch.float64)
        before = [param.detach().clone() for param in params]
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = grad.clone()
            optimizer.step()
        ours, adams = (old - new.detach() for old, new in zip(before, params, strict=True))
        if step >= steps - 400 and step % 20 == 0:
            gains.append((ours / adams).square().mean().sqrt().item())
    told = [beliefs.measure(o, torch.nn.ParameterList([p])).model for o, p in zip(optimizers, params, strict=True)]
    return np.sqrt(np.mean(np.square(gains))), *(values["step_gain_over_adam"] for values in told)


@pytest.mark.parametrize(("beta1", "noise_gain"), [(0.9, 1.083), (0.5, 1.732)])
@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
def test_the_gain_is_that_of_an_adam_beside_it_on_the_same_gradients(beta1, noise_gain, mean):
    actual, from_adabelief, from_adam = side_by_side(mean, torch.ones(2000), betas=(beta1, 0.999))
    assert from_adabelief == pytest.approx(actual, rel=0.03)
    assert from_adam == pytest.approx(actual, rel=0.03)
    if mean == 0:
        assert actual == pytest.approx(noise_gain, rel=0.02)
        assert noise_gain == pytest.approx(math.sqrt((1 + beta1) / 2) / beta1, abs=1e-3)


def test_the_gain_holds_for_the_previous_residual():
    actual, from_adabelief, _ = side_by_side(0.0, torch.ones(2000), betas=(0.5, 0.999), residual="previous")
    assert from_adabelief == pytest.approx(actual, rel=0.03)
    assert actual == pytest.approx(math.sqrt((1 + 0.5) / 2), rel=0.02)


def test_a_large_eps_is_no_noise():
    actual, from_adabelief, _ = side_by_side(1.0, torch.ones(2000), betas=(0.9, 0.999), eps=1e-3)
    assert from_adabelief == pytest.approx(actual, rel=0.03)


def test_from_an_adam_the_gain_of_unequal_weights_is_a_lower_bound():
    means = torch.tensor([0.0, 3.0]).repeat_interleave(1000)
    actual, from_adabelief, from_adam = side_by_side(means, torch.ones(2000), betas=(0.9, 0.999))
    assert from_adabelief == pytest.approx(actual, rel=0.05)
    assert 1 < from_adam < actual


def test_gain_and_eps_share_are_defined_where_state_is_zero():
    zero, one = torch.zeros(1), torch.ones(1)
    _, state, group = trained(1)
    scale = belief_scale(state, group | dict(eps=0.0))
    assert step_gain_over_adam(WeightBeliefs(zero, zero, zero, scale)).isnan()
    assert step_gain_over_adam(WeightBeliefs(one, zero, zero, scale)) == math.inf
    assert eps_share(WeightBeliefs(one, zero, zero, scale)) == 0


def test_a_layer_without_any_gradient_moves_as_adams_does():
    param = torch.nn.Parameter(torch.ones(5))
    optimizer = AdaBelief([param])
    param.grad = torch.zeros(5)
    optimizer.step()
    assert beliefs.measure(optimizer, torch.nn.ParameterList([param])).model["step_gain_over_adam"] == 1


@pytest.mark.parametrize("steps", [1, 50])
def test_weights_that_have_had_no_gradient_count_neither_in_means_nor_in_the_median(steps):
    alone, with_others = torch.nn.Parameter(torch.ones(100)), torch.nn.Parameter(torch.ones(300))
    optimizer = AdaBelief([alone, with_others], eps=1e-8)
    for _ in range(steps):
        alone.grad, with_others.grad = torch.randn(100), torch.zeros(300)
        with_others.grad[::3] = alone.grad
        optimizer.step()
    first, second = to_statistics(measure_columns(list(read_layers(optimizer).values())))
    for name in ("effective_step_size", "step_gain_over_adam", "eps_share"):
        assert first[name] == pytest.approx(second[name], rel=1e-6), name
    assert second["silent_fraction"] == pytest.approx(2 / 3)


def test_a_weight_whose_gradient_was_infinite_has_had_one():
    param = torch.nn.Parameter(torch.ones(4))
    optimizer = AdaBelief([param])
    param.grad = torch.tensor([0.0, 1.0, torch.inf, -torch.inf])
    optimizer.step()
    (layer,) = to_statistics(measure_columns(list(read_layers(optimizer).values())))
    assert layer["silent_fraction"] == 0.25


def test_eps_share_is_one_for_a_weight_without_gradient_and_small_for_one_with():
    grads = [[torch.tensor([0.0, (-1.0) ** t]).double()] for t in range(200)]
    (param,), optimizer = run(lambda p: AdaBelief(p, eps=1e-8), grads, [torch.ones(2).double()])
    share = eps_share(weight_beliefs(param, optimizer.state[param], optimizer.param_groups[0]))
    assert share[0] == pytest.approx(1) and share[1] < 1e-4


def test_complex_parameters_are_pairs_of_real_numbers():
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = AdaBelief([param])
    param.grad = torch.full((3,), 3 + 4j, dtype=torch.complex64)
    optimizer.step()
    (measured,) = to_statistics(measure_columns([(param, optimizer.state[param], optimizer.param_groups[0])]))
    assert measured["grad_norm"] == pytest.approx(5 * math.sqrt(3))


def test_layers_together_have_the_statistics_of_all_their_weights():
    layers = [trained(eps=eps) for eps in (1e-4, 1e-16)]
    columns = measure_columns(layers)
    (model,) = to_statistics(add_up(columns, [0, 1]))
    first, second = to_statistics(columns)
    for name in ("s_t", "eps_share"):
        assert model[name] == pytest.approx((first[name] + second[name]) / 2)
    for name in ("grad_norm", "update_norm", "weight_norm"):
        assert model[name] == pytest.approx(math.hypot(first[name], second[name]))
    assert model["update_to_weight"] == pytest.approx(model["update_norm"] / model["weight_norm"])


def test_the_median_of_layers_counts_each_weight():
    sizes = {"size": torch.tensor([30.0, 10.0]).double(), "effective_step_size": torch.tensor([1.0, 3.0]).double()}
    assert add_up(sizes, [0, 1])["effective_step_size"].item() == 1
    assert add_up(sizes | {"size": torch.tensor([10.0, 30.0]).double()}, [0, 1])["effective_step_size"].item() == 3


def test_many_layers_at_once_are_measured_as_each_alone():
    options = [dict(rectify=False), dict(amsgrad=True), dict(eps=1e-4, warmup=50), dict()]
    layers = [trained(steps=3 if not i % 2 else 40, **each) for i, each in enumerate(options)]
    layers += [trained(dtype=torch.float32), trained(dtype=torch.bfloat16)]
    together = to_statistics(measure_columns(layers))
    for i, layer in enumerate(layers):
        (alone,) = to_statistics(measure_columns([layer]))
        assert alone.keys() >= {row.name for row in STATE_STATISTICS}
        assert together[i] == pytest.approx(alone, rel=1e-5), i


def test_of_a_large_layer_sums_are_exact_and_medians_are_close():
    size = (64, 3 * SAMPLE // 8, 3, 3)
    param = torch.nn.Parameter(torch.randn(size).to(memory_format=torch.channels_last))
    optimizer = AdaBelief([param])
    for _ in range(10):  # each filter has a place where its gradient is small: the corner of its kernel
        param.grad = torch.randn_like(param) * torch.tensor([0.01] + [1.0] * 8).reshape(3, 3)
        optimizer.step()
    layer = (param, optimizer.state[param], optimizer.param_groups[0])
    (measured,), weights = to_statistics(measure_columns([layer])), weight_beliefs(*layer)
    update = effective_step_size(weights) * weights.trend
    # to the rounding of a sum of 900,000 float32
    assert measured["s_t"] == pytest.approx(weights.belief.double().mean().item(), rel=1e-4)
    assert measured["update_norm"] == pytest.approx(update.double().norm().item(), rel=1e-4)
    for name in ("effective_step_size",):
        rank = (BY_NAME[name].of_weights(weights) <= measured[name]).double().mean()
        assert rank == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(SAMPLE)), name


def test_measure_returns_what_the_layers_have_by_the_models_names():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    optimizer = AdaBelief(model.parameters(), warmup=10)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    measured = beliefs.measure(optimizer, model)
    assert list(measured.layers) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    group = optimizer.param_groups[0]
    (weight,) = to_statistics(measure_columns([(model[0].weight, optimizer.state[model[0].weight], group)]))
    assert measured.layers["0.weight"] == pytest.approx(weight)
    norms = [values["grad_norm"] for values in measured.layers.values()]
    assert measured.model["grad_norm"] == pytest.approx(math.hypot(*norms))
    assert measured.groups == {"pg1": {"lr": 0.5e-3, "rectification": 0.0, "warmup": 0.5}}  # a step of SGD


def test_measure_reads_an_adam_without_what_it_does_not_have():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    measured = beliefs.measure(optimizer, model)
    assert measured.model.keys() >= {"s_t", "step_gain_over_adam"} and "eps_share" not in measured.model
    assert measured.groups == {"pg1": {"lr": pytest.approx(1e-3)}}


def test_measure_before_the_first_step_is_empty():
    model = torch.nn.Linear(4, 1)
    assert beliefs.measure(AdaBelief(model.parameters()), model) == ({}, {}, {})


def test_measure_tells_of_an_optimizer_without_averages_what_its_gradient_tells():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.ones(8, 4)).sum().backward()
    optimizer.step()
    measured = beliefs.measure(optimizer, model)
    assert measured.layers["weight"]["grad_norm"] == pytest.approx(16)
    assert not {"s_t", "update_norm", "grad_momentum_cosine"} & measured.model.keys()
    assert measured.groups == {"pg1": {"lr": 0.5}}


@pytest.mark.parametrize(
    ("old", "new", "name"), [("belief", "elementwise", "moments"), ("statistics", "layers", "norms")]
)
def test_modules_that_moved_keep_their_old_names_with_a_warning(old, new, name):
    sys.modules.pop(f"lightning_adabelief.optim.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"is now lightning_adabelief.beliefs.{new}"):
        module = importlib.import_module(f"lightning_adabelief.optim.{old}")
    moved = vars(importlib.import_module(f"lightning_adabelief.beliefs.{new}"))
    assert all(vars(module)[each] is moved[each] for each in (name, "BeliefScale"))


def cosines(grads, **options):
    """The statistic at each step, and the cosine of each gradient and the momentum before it, which was kept."""
    param = torch.nn.Parameter(torch.ones_like(grads[0]))
    optimizer = AdaBelief([param], **options)
    measured, kept = [], []
    for grad in grads:
        before = optimizer.state[param]["exp_avg"].clone() if optimizer.state else torch.zeros_like(grad)
        used = -grad if options.get("maximize") else grad
        if not options.get("weight_decouple", True):
            used = used + options["weight_decay"] * param.detach()
        kept.append(cosine(used.numpy(), before.numpy()))
        param.grad = grad.clone()
        optimizer.step()
        layer = (param, optimizer.state[param], optimizer.param_groups[0])
        measured.append(to_statistics(measure_columns([layer]))[0]["grad_momentum_cosine"])
    return measured, kept


@pytest.mark.parametrize(
    "options", [{}, dict(maximize=True), dict(betas=(0.5, 0.9)), dict(weight_decay=0.3, weight_decouple=False)], ids=str
)
def test_the_cosine_is_of_the_momentum_before_the_step(options):
    measured, kept = cosines([torch.randn(3000) + 0.3 for _ in range(8)], **options)
    assert math.isnan(measured[0])  # there was no momentum
    assert measured[1:] == pytest.approx(kept[1:], abs=2e-3)


def test_the_cosine_is_one_for_a_constant_gradient_and_near_zero_on_noise():
    constant, _ = cosines([torch.ones(1000)] * 5)
    assert constant[1:] == pytest.approx([1] * 4, abs=1e-5)
    noise, _ = cosines([torch.randn(100_000) for _ in range(20)])
    assert noise[-1] == pytest.approx(0, abs=0.02)  # m_t, which holds the gradient itself, would have 0.44


def test_there_is_no_cosine_without_momentum():
    without, _ = cosines([torch.randn(100) for _ in range(3)], betas=(0.0, 0.9), residual="previous")
    assert all(map(math.isnan, without))
    silent, _ = cosines([torch.zeros(100), torch.zeros(100), torch.randn(100)])
    assert all(map(math.isnan, silent))
