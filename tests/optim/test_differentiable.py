"""Autograd through several steps, against finite differences."""

import pytest
import torch
from torch.autograd import gradcheck

from lightning_adabelief import AdaBelief

STEPS = 5

OPTIONS = [
    dict(),
    dict(rectify=False),
    dict(degenerated_to_sgd=False),
    dict(amsgrad=True, warmup=20),
    dict(amsgrad=True, weight_decay=0.1, weight_decouple=False, rectify=False),
    dict(weight_decay=0.1, maximize=True, residual="previous"),
]


def tensor(*shape, dtype=torch.float64, at_least=None):
    value = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(len(shape)))
    return (value if at_least is None else value.abs() + at_least).requires_grad_()


def train(param, grads, exp_avg, exp_avg_var, max_exp_avg_var, **options):
    """Take steps 4 to 8, of which with rectification and beta2 = 0.9 the first are SGD's."""
    param = param.clone()
    optimizer = AdaBelief([param], eps=1e-4, differentiable=True, **options)
    state = dict(step=torch.tensor(3.0), exp_avg=exp_avg.clone(), exp_avg_var=exp_avg_var.clone())
    if options.get("amsgrad"):
        state["max_exp_avg_var"] = max_exp_avg_var.clone()
    optimizer.state[param] = state
    for grad in grads:
        param.grad = grad
        optimizer.step()
    assert state["step"] == 3 + STEPS
    return param, *list(state.values())[1:]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_flow_to_parameters_gradients_and_state(options):
    inputs = tensor(4), tensor(STEPS, 4), tensor(4), tensor(4, at_least=0.5), tensor(4, at_least=0.5)
    assert gradcheck(lambda *values: train(*values, lr=0.1, betas=(0.8, 0.9), **options), inputs)


@pytest.mark.parametrize("default_dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_flow_to_a_tensor_lr_and_betas(options, default_dtype):
    state = tensor(4), tensor(STEPS, 4), tensor(4), tensor(4, at_least=0.5), tensor(4, at_least=0.5)
    lr, *betas = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, 0.8, 0.9))
    torch.set_default_dtype(default_dtype)  # the dtype of the step
    try:
        assert gradcheck(lambda lr, *betas: train(*state, lr=lr, betas=betas, **options), (lr, *betas))
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_flow_through_complex_parameters():
    shape, complex_ = (4,), torch.complex128
    s = torch.complex(torch.full(shape, 0.5), torch.full(shape, 0.7)).to(complex_)
    inputs = tensor(*shape, dtype=complex_), tensor(STEPS, *shape, dtype=complex_), tensor(*shape, dtype=complex_)
    assert gradcheck(lambda p, g, m: train(p, g, m, s, s, lr=0.1, betas=(0.8, 0.9)), inputs)


def test_a_learning_rate_can_be_learned_through_the_optimizer():
    lr = torch.tensor(0.01, requires_grad=True)
    param = torch.ones(3)
    optimizer = AdaBelief([param], lr=lr, differentiable=True)
    for _ in range(8):
        param.grad = 2 * param.detach()
        optimizer.step()
    param.square().sum().backward()
    assert lr.grad < 0  # a larger one would have come further down
