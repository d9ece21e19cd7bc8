"""Huge gradients, a learning rate of exactly 0 and a beta2 of 0: every implementation does as the for loop."""

import math

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module

IMPLEMENTATIONS = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable forloop": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True),
    "capturable foreach, tensor lr and betas": dict(foreach=True, capturable=True, in_tensors=True),
    "compiled forloop": dict(foreach=False, compiled=True),
    "compiled foreach": dict(foreach=True, compiled=True),
}


@pytest.fixture(autouse=True)
def capturable_on_cpu(monkeypatch):
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])


def step(grad, steps, *, lr=1e-3, betas=(0.9, 0.999), in_tensors=False, compiled=False, **options):
    """Take steps with the same gradients, numbers, from weights of 1, and return the weights."""
    if in_tensors:
        lr, betas = torch.tensor(lr), tuple(map(torch.tensor, betas))
    param = torch.nn.Parameter(torch.ones(len(grad)))
    optimizer = AdaBelief([param], lr=lr, betas=betas, **options)
    torch._dynamo.reset()
    take_step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
    for _ in range(steps):
        param.grad = torch.tensor(grad)
        take_step()
    return param.tolist()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), {3: -3e18, 7: -5e18}),  # steps of SGD, then none, for s_t is infinite
        (dict(amsgrad=True), {1: -1e18}),
        (dict(betas=(0.9, 0.0)), {7: -7e18}),  # beta2 = 0 is never rectified
        (dict(betas=(0.9, 0.0), rectify=False), {3: 1.0}),
        (dict(degenerated_to_sgd=False), {7: 1.0}),
    ],
    ids=str,
)
def test_a_gradient_whose_square_is_infinite_does_the_same_everywhere(implementation, options, expected):
    for steps, weight in expected.items():
        assert step([1e21], steps, **options, **IMPLEMENTATIONS[implementation]) == pytest.approx([weight], rel=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_with_beta2_0_an_infinite_belief_is_forgotten_at_the_next_step(implementation):
    in_tensors = IMPLEMENTATIONS[implementation].get("in_tensors", False)
    param = torch.nn.Parameter(torch.ones(3))
    betas = tuple(map(torch.tensor, (0.9, 0.0))) if in_tensors else (0.9, 0.0)
    switches = {k: v for k, v in IMPLEMENTATIONS[implementation].items() if k not in ("in_tensors", "compiled")}
    optimizer = AdaBelief([param], betas=betas, rectify=False, **switches)
    for grad in (1e21, 1.0):
        param.grad = torch.full((3,), grad)
        optimizer.step()
    optimizer.state[param]["exp_avg"].zero_()
    optimizer.step()
    assert optimizer.state[param]["exp_avg_var"][0].item() == pytest.approx(0.81)


DECAYS = [
    dict(),
    dict(weight_decay=0.1),
    dict(weight_decay=0.1, fixed_decay=True),
    dict(weight_decay=0.1, fixed_decay=True, rectify=False, amsgrad=True),
    dict(weight_decay=0.1, weight_decouple=False),
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("options", DECAYS, ids=str)
def test_at_lr_0_nothing_moves_whatever_the_gradient(implementation, options):
    gradients = [0.0, 0.5, 1e21, math.inf, math.nan]
    for steps in (1, 7):
        assert step(gradients, steps, lr=0.0, **options, **IMPLEMENTATIONS[implementation]) == [1.0] * len(gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("implementation", ["forloop", "foreach", "fused", "capturable foreach"])
def test_at_lr_0_weights_of_every_dtype_keep_their_bits(implementation, dtype):
    if implementation == "fused" and dtype.is_complex:
        pytest.skip("fused serves real numbers")
    param = torch.nn.Parameter(torch.randn(50, dtype=dtype))
    before = param.detach().clone()
    optimizer = AdaBelief([param], lr=0.0, weight_decay=0.1, fixed_decay=True, **IMPLEMENTATIONS[implementation])
    for _ in range(7):
        param.grad = torch.randn_like(param)
        optimizer.step()
    assert torch.equal(param, before)


def test_fixed_decay_acts_at_every_other_lr():
    for lr in (1e-30, 1e-3):
        assert step([0.0], 1, lr=lr, weight_decay=0.1, fixed_decay=True) == pytest.approx([0.9])


@pytest.mark.parametrize("implementation", ["forloop", "foreach", "fused"])
@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3)], ids=["number", "tensor"])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_loading_by_torchs_distributed_checkpoint_moves_no_weight(implementation, lr):
    if implementation == "foreach" and isinstance(lr, torch.Tensor):
        pytest.skip("needs capturable")

    def make(model):
        switches = IMPLEMENTATIONS[implementation]
        return AdaBelief(model.parameters(), lr=lr, weight_decay=0.1, fixed_decay=True, **switches)

    model = torch.nn.Linear(3, 2)
    optimizer = make(model)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    before = [param.detach().clone() for param in model.parameters()]
    saved = get_optimizer_state_dict(model, optimizer)
    fresh = make(model)
    set_optimizer_state_dict(model, fresh, saved)
    assert all(torch.equal(param, b) for param, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(fresh.state[p]["exp_avg"], optimizer.state[p]["exp_avg"]) for p in model.parameters())
    assert all(fresh.state[p]["step"] == 1 for p in model.parameters())
