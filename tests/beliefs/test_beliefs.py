"""The statistics against their definitions, computed directly in float64."""

import math

import numpy as np
import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.beliefs.elementwise import belief_scale, effective_step_size, elementwise, eps_share
from lightning_adabelief.beliefs.elementwise import step_gain_over_adam as _step_gain_over_adam
from lightning_adabelief.beliefs.layers import LAYER_STATISTICS, SAMPLE, layer_statistics, model_statistics
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
    update = size * m_hat
    weight = param.detach().double().numpy()
    return {
        "s_t": s_hat.mean(),
        "effective_step_size": np.quantile(size, 0.5, method="lower"),
        "step_gain_over_adam": np.quantile(np.sqrt(s_hat + m_hat**2) / np.sqrt(s_hat), 0.5, method="lower"),
        "eps_share": (accumulated / s).mean(),
        "update_to_weight": np.linalg.norm(update) / np.linalg.norm(weight),
        "grad_norm": np.linalg.norm(grad.double().numpy()),
        "update_norm": np.linalg.norm(update),
    }


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_layer_statistics_are_their_definitions(options, dtype):
    param, state, group = trained(dtype=dtype, **options)
    measured = layer_statistics([(param, state, group)])
    expected = directly(param, param.grad, state, group, 60)
    for name in LAYER_STATISTICS:
        assert measured[name].dtype == torch.float64 and measured[name].shape == (1,)
        assert measured[name].item() == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_the_update_is_what_the_optimizer_did(options):
    options = options | dict(weight_decay=0.0)
    before, _, _ = trained(59, **options)
    after, state, group = trained(60, **options)
    torch.testing.assert_close(elementwise(after, state, group)["update"], (before - after).detach(), rtol=1e-9, atol=0)


def test_in_a_step_of_sgd_the_effective_step_size_is_lr_and_in_none_it_is_0():
    _, state, group = trained(3)
    for degenerated_to_sgd, expected in ((True, 0.01), (False, 0.0)):
        scale = belief_scale(state, group | dict(degenerated_to_sgd=degenerated_to_sgd))
        assert effective_step_size(torch.rand(4), scale).tolist() == pytest.approx([expected] * 4)


def test_gain_over_adam_is_large_where_gradients_agree_and_one_where_they_are_noise():
    noise = [[torch.randn(1000, dtype=torch.float64)] for _ in range(500)]
    agreeing = [[1 + 0.01 * g[0]] for g in noise]
    gains = []
    for grads in (noise, agreeing):
        (param,), optimizer = run(lambda p: AdaBelief(p), grads, [torch.zeros(1000).double()])
        layer = (param, optimizer.state[param], optimizer.param_groups[0])
        gains.append(layer_statistics([layer])["step_gain_over_adam"].item())
    assert gains[0] == pytest.approx(1, abs=0.05)
    assert gains[1] > 10


def test_gain_and_eps_share_are_defined_where_state_is_zero():
    zero, one = torch.zeros(1), torch.ones(1)
    assert _step_gain_over_adam(zero, zero) == 1
    assert _step_gain_over_adam(one, zero) == math.inf
    _, state, group = trained(1)
    assert eps_share(zero, belief_scale(state, group | dict(eps=0.0))) == 0


def test_eps_share_is_one_for_a_weight_without_gradient_and_small_for_one_with():
    grads = [[torch.tensor([0.0, (-1.0) ** t]).double()] for t in range(200)]
    (param,), optimizer = run(lambda p: AdaBelief(p, eps=1e-8), grads, [torch.ones(2).double()])
    share = elementwise(param, optimizer.state[param], optimizer.param_groups[0])["eps_share"]
    assert share[0] == pytest.approx(1) and share[1] < 1e-4


def test_complex_parameters_are_pairs_of_real_numbers():
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = AdaBelief([param])
    param.grad = torch.full((3,), 3 + 4j, dtype=torch.complex64)
    optimizer.step()
    measured = layer_statistics([(param, optimizer.state[param], optimizer.param_groups[0])])
    assert measured["grad_norm"].item() == pytest.approx(5 * math.sqrt(3))


def test_the_model_is_summed_up_over_weights_not_layers():
    layers = {name: torch.tensor([1.0, 3.0]) for name in (*LAYER_STATISTICS, "weight_norm", "silent_share")}
    model = model_statistics(layers, sizes=torch.tensor([30, 10]))
    assert model["s_t"] == model["eps_share"] == 1.5
    assert model["effective_step_size"] == model["step_gain_over_adam"] == 1
    assert model["grad_norm"] == model["update_norm"] == pytest.approx(math.sqrt(10))
    assert model["update_to_weight"] == pytest.approx(1)


def test_many_layers_at_once_are_measured_as_each_alone():
    options = [dict(rectify=False), dict(amsgrad=True), dict(eps=1e-4, warmup=50), dict()]
    layers = [trained(steps=3 if not i % 2 else 40, **each) for i, each in enumerate(options)]
    layers += [trained(dtype=torch.float32), trained(dtype=torch.bfloat16)]
    together = layer_statistics(layers)
    for i, layer in enumerate(layers):
        for name, value in layer_statistics([layer]).items():
            assert together[name][i].item() == pytest.approx(value.item(), rel=1e-6), (i, name)


def test_of_a_large_layer_sums_are_exact_and_medians_are_close():
    size = (64, 3 * SAMPLE // 8, 3, 3)
    param = torch.nn.Parameter(torch.randn(size).to(memory_format=torch.channels_last))
    optimizer = AdaBelief([param])
    for _ in range(10):  # each filter has a place where its gradient is small: the corner of its kernel
        param.grad = torch.randn_like(param) * torch.tensor([0.01] + [1.0] * 8).reshape(3, 3)
        optimizer.step()
    layer = (param, optimizer.state[param], optimizer.param_groups[0])
    measured, values = layer_statistics([layer]), elementwise(*layer)
    # to the rounding of a sum of 900,000 float32
    assert measured["s_t"].item() == pytest.approx(values["s_t"].double().mean().item(), rel=1e-4)
    assert measured["update_norm"].item() == pytest.approx(values["update"].double().norm().item(), rel=1e-4)
    for name in ("effective_step_size", "step_gain_over_adam"):
        rank = (values[name] <= measured[name].item()).double().mean()
        assert rank == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(SAMPLE)), name
