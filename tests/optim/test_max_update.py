"""max_update_to_lr: no weight moves further in a step than so many times lr, whatever the implementation."""

import math

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module
from tests.optim.reference import assert_close, gradients, run

IMPLEMENTATIONS = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable forloop": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True),
}
SHAPES = [(3, 4), (67,), (), (0,)]
OPTIONS = [
    dict(),
    dict(rectify=False, amsgrad=True, weight_decay=0.1),
    dict(degenerated_to_sgd=False, betas=(0.9, 0.98), warmup=10, maximize=True),
    dict(residual="previous", betas=(0.0, 0.9), weight_decay=0.1, weight_decouple=False),
]


@pytest.fixture(autouse=True)
def capturable_on_cpu(monkeypatch):
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])


def wild_gradients(steps, dtype=torch.float64):
    """Gradients that jump by powers of ten, and at times stand still, so that s_t becomes tiny."""
    scales = [10.0 ** ((7 * t) % 9 - 4) for t in range(steps)]
    return [
        [gradient * scale if t % 20 < 10 else torch.full_like(gradient, 3.0) for gradient in of_step]
        for t, (scale, of_step) in enumerate(zip(scales, gradients(steps, SHAPES, dtype=dtype), strict=True))
    ]


def starts(dtype=torch.float64):
    return [torch.zeros(SHAPES[0], dtype=dtype), *(torch.full(shape, 0.5, dtype=dtype) for shape in SHAPES[1:])]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_moves_weights_alike_and_no_further_than_the_bound(implementation, options):
    lr, bound = 1e-2, 0.2
    without_decay = "weight_decay" not in options or not options.get("weight_decouple", True)
    largest = []

    def make(switches):
        return lambda params: AdaBelief(params, lr=lr, max_update_to_lr=bound, **switches, **options)

    before = [value.clone() for value in starts()]

    def measure(optimizer, t):
        params = optimizer.param_groups[0]["params"]
        if t and without_decay:
            lr_t = lr * min(1, t / options.get("warmup", 1))
            moved = [
                (param.detach() - value).abs().max() / lr_t
                for param, value in zip(params, before, strict=True)
                if param.numel()
            ]
            largest.append(max(moved).item())
        before[:] = [param.detach().clone() for param in params]

    ours, _ = run(make(IMPLEMENTATIONS[implementation]), wild_gradients(60), starts(), None, measure)
    theirs, _ = run(make(dict(foreach=False)), wild_gradients(60), starts())
    for our, their in zip(ours, theirs, strict=True):
        if our.numel():
            assert_close([our], [their], 1e-10)
    if without_decay:
        assert max(largest) == pytest.approx(bound)  # it is met, and so never exceeded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64], ids=str)
@pytest.mark.parametrize("implementation", ["forloop", "foreach", "fused", "capturable foreach"])
def test_the_first_step_on_huge_gradients_is_the_bound_in_every_dtype(implementation, dtype):
    if dtype.is_complex and implementation == "fused":
        pytest.skip("fused serves real numbers")
    param = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
    optimizer = AdaBelief([param], lr=0.5, max_update_to_lr=2.0, **IMPLEMENTATIONS[implementation])
    param.grad = torch.tensor([3e4, -3e4, 0.0]).to(dtype)
    optimizer.step()
    assert param.real.tolist() == [-1.0, 1.0, 0.0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_nan_is_not_hidden_and_an_infinite_update_is_bounded(implementation):
    param = torch.nn.Parameter(torch.zeros(3))
    optimizer = AdaBelief([param], lr=0.5, max_update_to_lr=2.0, **IMPLEMENTATIONS[implementation])
    param.grad = torch.tensor([math.nan, math.inf, 1e30])
    optimizer.step()
    assert param[0].isnan() and param[1:].tolist() == [-1.0, -1.0]


def test_a_bound_that_is_never_met_changes_nothing():
    grads = gradients(50, SHAPES, dtype=torch.float32)
    for switches in (dict(foreach=False), dict(foreach=True), dict(fused=True)):
        bounded, _ = run(lambda p, s=switches: AdaBelief(p, max_update_to_lr=1e6, **s), grads, starts(torch.float32))
        free, _ = run(lambda p, s=switches: AdaBelief(p, **s), grads, starts(torch.float32))
        for ours, theirs in zip(bounded, free, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_tensor_lr_and_a_bound_of_a_group():
    params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "max_update_to_lr": 3.0}]
    optimizer = AdaBelief(groups, lr=torch.tensor(0.1), max_update_to_lr=1.0, foreach=True, capturable=True)
    for param in params:
        param.grad = torch.full_like(param, 1e5)
    optimizer.step()
    torch.testing.assert_close(params[0].detach(), torch.full((2,), -0.1))
    torch.testing.assert_close(params[1].detach(), torch.full((2,), -0.3))


def test_autograd_goes_through_a_bounded_step():
    lr = torch.tensor(0.1, requires_grad=True)
    grad = torch.tensor([1e5, 0.3], requires_grad=True)
    param = torch.zeros(2, requires_grad=True).clone()
    param.grad = grad
    optimizer = AdaBelief([param], lr=lr, max_update_to_lr=2.0, differentiable=True)
    optimizer.step()
    by_lr, by_grad = torch.autograd.grad(param.sum(), (lr, grad))
    assert by_lr.item() == pytest.approx(-2.0 - 0.3) and by_grad.tolist() == pytest.approx([0.0, -0.1])


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "10", True])
def test_other_bounds_are_refused(value):
    with pytest.raises(ValueError, match="max_update_to_lr"):
        AdaBelief([torch.nn.Parameter(torch.zeros(2))], max_update_to_lr=value)
