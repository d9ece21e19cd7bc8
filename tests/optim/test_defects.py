"""The known defects of ``adabelief-pytorch`` 0.2.1: each is shown there, and absent here."""

import contextlib
import io

import pytest
import torch

from lightning_adabelief import AdaBelief
from tests.optim.reference import gradients, original, run


def train(make, dtype=torch.float32, steps=20, save_and_load_after=None, grad=None, **options):
    """Train three weights; return the last parameter and its optimizer."""
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = make([param], **options)
    generator = torch.Generator().manual_seed(0)
    for t in range(steps):
        if t == save_and_load_after:
            saved = optimizer.state_dict()
            optimizer = make([param], **options)
            optimizer.load_state_dict(saved)
        noise = 1e-3 * torch.randn(3, generator=generator)
        param.grad = (noise if grad is None else torch.full((3,), grad)).to(dtype)
        optimizer.step()
    return param, optimizer


def test_float16_parameters_stay_finite_after_save_and_load():
    broken, _ = train(original, torch.float16, save_and_load_after=10, lr=1e-3)
    assert not broken.isfinite().all()
    param, optimizer = train(AdaBelief, torch.float16, save_and_load_after=10, lr=1e-3)
    assert param.isfinite().all()
    assert (optimizer.state[param]["exp_avg_var"] > 0).all()


def test_bfloat16_parameters_have_float32_state():
    param, optimizer = train(original, torch.bfloat16)
    assert optimizer.state[param]["exp_avg_var"].dtype == torch.bfloat16
    param, optimizer = train(AdaBelief, torch.bfloat16)
    assert optimizer.state[param]["exp_avg_var"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_low_precision_step_keeps_the_parameters_storage(dtype):
    def keeps_storage(make):
        param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
        param.grad = torch.ones_like(param)
        address = param.data_ptr()
        make([param]).step()
        return param.data_ptr() == address

    assert keeps_storage(original) == (dtype != torch.float16)
    assert keeps_storage(AdaBelief)


def test_amsgrad_acts_with_rectify():
    def effect(make):
        grads = gradients(50, [(3,)]) + [[torch.ones(3).double()]] * 100
        start = [torch.ones(3).double()]
        (with_max,), _ = run(lambda p: make(p, amsgrad=True, rectify=True), grads, start)
        (without,), _ = run(lambda p: make(p, amsgrad=False, rectify=True), grads, start)
        return (with_max - without).abs().max()

    assert effect(original) == 0
    assert effect(AdaBelief) > 1e-3


@pytest.mark.parametrize("option", ["weight_decouple", "fixed_decay", "rectify"])
def test_options_in_a_param_group_act_and_are_saved(option):
    def effect(make):
        grads = gradients(20, [(3,)])
        start = [torch.ones(3).double()]
        switched = not (option != "fixed_decay")  # the other value than the default
        (set_,), optimizer = run(lambda p: make([{"params": p, option: switched}], weight_decay=0.1), grads, start)
        (default,), _ = run(lambda p: make(p, weight_decay=0.1), grads, start)
        return (set_ - default).abs().max(), optimizer

    assert effect(original)[0] == 0
    difference, optimizer = effect(AdaBelief)
    assert difference > 1e-6
    assert option in optimizer.state_dict()["param_groups"][0]
    assert option not in original([torch.nn.Parameter(torch.ones(1))]).state_dict()["param_groups"][0]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_coupled_decay_leaves_the_gradient_as_it_is(foreach, maximize):
    def gradient_after(make, **options):
        param = torch.nn.Parameter(torch.ones(3))
        param.grad = torch.ones(3)
        make([param], weight_decay=0.5, weight_decouple=False, **options).step()
        return param.grad

    assert torch.equal(gradient_after(original), torch.full((3,), 1.5))
    assert torch.equal(gradient_after(AdaBelief, foreach=foreach, maximize=maximize), torch.ones(3))


def test_zero_beta1_does_not_explode():
    exploded, _ = train(original, steps=8, grad=0.1, lr=1e-3, betas=(0.0, 0.999), rectify=False)
    assert exploded.min() < -2000
    with pytest.raises(ValueError, match="residual='previous'"):
        AdaBelief([torch.nn.Parameter(torch.ones(3))], betas=(0.0, 0.999))
    param, _ = train(AdaBelief, steps=8, grad=0.1, lr=1e-3, betas=(0.0, 0.999), rectify=False, residual="previous")
    assert (param > 0.9).all()


@pytest.mark.parametrize("eps", [1e-12, 1e-8])
def test_a_constant_gradient_grows_the_step_as_the_rule_says_unless_amsgrad_bounds_it(eps):
    def last_step(make, **options):
        param = torch.nn.Parameter(torch.zeros(3).double())
        optimizer = make([param], lr=1e-3, eps=eps, **options)
        for _ in range(3000):
            before = param.detach().clone()
            param.grad = torch.full((3,), 0.1).double()
            optimizer.step()
        return (param - before).abs().max().item() / 1e-3

    assert last_step(original, amsgrad=True) > 25
    assert last_step(AdaBelief, amsgrad=True) < 16
    # Without amsgrad the growth is the paper's own rule (region 3), and stays: eps is its floor.
    assert last_step(AdaBelief) == pytest.approx(last_step(original), rel=1e-9)


def test_nothing_is_printed():
    def printed(make):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            make([torch.nn.Parameter(torch.ones(1))], print_change_log=False)
        return out.getvalue()

    from adabelief_pytorch import AdaBelief as Original

    assert printed(Original).count("\n") == 2
    assert printed(AdaBelief) == ""


def test_checkpoints_hold_no_cache():
    assert "buffer" in train(original)[1].state_dict()["param_groups"][0]
    assert "buffer" not in train(AdaBelief)[1].state_dict()["param_groups"][0]


def test_an_adam_checkpoint_loads_and_steps():
    adam_param, adam = train(torch.optim.Adam)
    broken = original([torch.nn.Parameter(torch.ones(3))])
    broken.load_state_dict(adam.state_dict())
    broken.param_groups[0]["params"][0].grad = torch.ones(3)
    with pytest.raises(KeyError):
        broken.step()

    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param])
    with pytest.warns(UserWarning, match="s_t is estimated"):
        optimizer.load_state_dict(adam.state_dict())
    before = param.detach().clone()
    param.grad = torch.full((3,), 1e-3)
    optimizer.step()
    assert optimizer.state[param]["step"] == 21
    assert 0 < (param - before).abs().max() < 0.01
