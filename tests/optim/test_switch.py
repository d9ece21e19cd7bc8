"""Switching a running Adam: the first update is that of an AdaBelief which had run all along."""

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.migrate import estimate_exp_avg_var, measure_agreement

WEIGHTS = 4000
STEPS = 300
BETA2 = 0.99


def mixed_means(generator):
    return 2 * torch.randn(WEIGHTS, generator=generator, dtype=torch.float64)


MEANS = {
    "pure noise": lambda _: torch.zeros(WEIGHTS, dtype=torch.float64),
    "mean as large as noise": lambda _: torch.ones(WEIGHTS, dtype=torch.float64),
    "mixed": mixed_means,
}


def noisy_gradients(mean, steps=STEPS + 1, noise=lambda t: 1.0):
    """Return a mean and noise of standard deviation 1, for each step a tensor of WEIGHTS."""
    generator = torch.Generator().manual_seed(0)
    mean = MEANS[mean](generator)
    return [mean + noise(t) * torch.randn(WEIGHTS, generator=generator, dtype=torch.float64) for t in range(steps)]


def updates_after_switch(grads, beta1, residual="updated", eps=1e-16, amsgrad=False, adam=torch.optim.Adam):
    """Return the last update, in units of lr, of an AdaBelief all along and of one switched from Adam before it."""
    shared = dict(lr=1.0, betas=(beta1, BETA2), amsgrad=amsgrad)
    options = dict(rectify=False, residual=residual, eps=eps, **shared)
    straight, switched = (torch.nn.Parameter(torch.zeros(WEIGHTS, dtype=torch.float64)) for _ in range(2))
    optimizers = [AdaBelief([straight], **options), adam([switched], eps=1e-12, weight_decay=0, **shared)]
    updates = []
    for t, grad in enumerate(grads):
        if t == len(grads) - 1:
            adabelief = AdaBelief([switched], **options)
            with pytest.warns(UserWarning, match="checkpoint of Adam into AdaBelief"):
                adabelief.load_state_dict(optimizers[1].state_dict())
            optimizers[1] = adabelief
        before = [param.detach().clone() for param in (straight, switched)]
        for param, optimizer in zip((straight, switched), optimizers, strict=True):
            param.grad = grad.clone()
            optimizer.step()
        updates = [was - param.detach() for was, param in zip(before, (straight, switched), strict=True)]
    return updates


def rms(update):
    return update.square().mean().sqrt().item()


@pytest.mark.parametrize("residual", ["updated", "previous"])
@pytest.mark.parametrize("beta1", [0.9, 0.5])
@pytest.mark.parametrize("mean", ["pure noise", "mean as large as noise"])
def test_the_first_update_after_the_switch_is_as_large_as_without_one(mean, beta1, residual):
    straight, switched = updates_after_switch(noisy_gradients(mean), beta1, residual)
    assert rms(switched) == pytest.approx(rms(straight), rel=0.12)
    assert switched.abs().max() <= 1.15 * straight.abs().max()


@pytest.mark.parametrize("beta1", [0.9, 0.5])
def test_a_tensor_of_mixed_weights_is_switched_with_caution(beta1):
    straight, switched = updates_after_switch(noisy_gradients("mixed"), beta1)
    assert 0.6 * rms(straight) < rms(switched) < rms(straight)
    assert switched.abs().max() < straight.abs().max()


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("mean", MEANS)
def test_a_switch_after_few_steps_is_safe(mean, steps):
    straight, switched = updates_after_switch(noisy_gradients(mean, steps + 1), 0.9)
    assert 0.9 * rms(straight) < rms(switched) < 2 * rms(straight)
    assert switched.abs().max() < 2 * straight.abs().max()
    if steps == 1:
        torch.testing.assert_close(switched, straight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("eps", [1e-3, 1.0])
def test_accumulated_eps_is_carried(eps):
    straight, switched = updates_after_switch(noisy_gradients("pure noise"), 0.9, eps=eps)
    assert rms(switched) == pytest.approx(rms(straight), rel=0.03)


def test_amsgrads_maximum_is_carried():
    grads = noisy_gradients("pure noise", noise=lambda t: 1.0 if t < STEPS // 3 else 0.1)
    straight, switched = updates_after_switch(grads, 0.9, amsgrad=True)
    without, _ = updates_after_switch(grads, 0.9)
    assert rms(switched) == pytest.approx(rms(straight), rel=0.05)
    assert rms(straight) < 0.5 * rms(without)


def test_zero_beta1_is_switched_to_the_previous_residual():
    straight, switched = updates_after_switch(noisy_gradients("pure noise"), 0.0, residual="previous")
    assert rms(switched) == pytest.approx(rms(straight), rel=0.05)


def test_radam_is_switched_as_adam_is():
    def radam(params, amsgrad, **options):
        return torch.optim.RAdam(params, **options)

    straight, switched = updates_after_switch(noisy_gradients("pure noise"), 0.9, adam=radam)
    assert rms(switched) == pytest.approx(rms(straight), rel=0.05)


def test_a_tensor_that_never_had_a_gradient_but_zero_is_switched_to_eps_alone():
    param = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    param.grad = torch.zeros_like(param)
    adam = torch.optim.Adam([param], amsgrad=True)
    adam.step()
    adabelief = AdaBelief([param], eps=1e-6, amsgrad=True)
    with pytest.warns(UserWarning):
        adabelief.load_state_dict(adam.state_dict())
    for key in ("exp_avg_var", "max_exp_avg_var"):
        torch.testing.assert_close(adabelief.state[param][key], torch.full((3,), 1e-6, dtype=torch.float64))


def test_complex_moments_are_pairs_of_real_ones():
    pairs = [torch.randn(50, 2, dtype=torch.float64) for _ in range(20)]
    states = []
    for view in (lambda t: t, torch.view_as_complex):
        param = torch.nn.Parameter(view(torch.zeros(50, 2, dtype=torch.float64)))
        adam = torch.optim.Adam([param])
        for grad in pairs:
            param.grad = view(grad.clone())
            adam.step()
        adabelief = AdaBelief([param])
        with pytest.warns(UserWarning):
            adabelief.load_state_dict(adam.state_dict())
        states.append(adabelief.state[param]["exp_avg_var"])
    torch.testing.assert_close(torch.view_as_real(states[1]), states[0])


def test_moments_in_bfloat16_are_switched_as_the_floats_that_they_are():
    betas, step = (0.9, 0.999), 50
    m = (1 - betas[0] ** step) * (1 + 0.05 * torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(0)))
    v = torch.full((WEIGHTS,), 1.05 * (1 - betas[1] ** step))
    narrow = m.bfloat16(), v.bfloat16()
    wide = narrow[0].float(), narrow[1].float()
    found, expected = (estimate_exp_avg_var(*moments, step, betas, "updated") for moments in (narrow, wide))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(measure_agreement(*moments, step, betas) for moments in (narrow, wide)))
