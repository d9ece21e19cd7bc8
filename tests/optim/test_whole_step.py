"""A step happens whole or not at all: an error counts no step, moves no weight and makes no state."""

import contextlib
import copy
import shutil

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.fused import build

COMPILER = shutil.which("g++") or shutil.which("clang++")
SWITCHES = [dict(foreach=False), dict(foreach=True), dict(fused=True)]


@contextlib.contextmanager
def nothing_happens(optimizer):
    """Assert that parameters and state are bit for bit what they were."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    before = [param.detach().clone() for param in params]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    yield
    assert all(torch.equal(param, was) for param, was in zip(params, before, strict=True))
    assert repr(optimizer.state_dict()["state"]) == repr(state)
    assert len(optimizer.state) == len(state)


def two_parameters(steps, **switches):
    """A parameter in a group of its own, which is updated first, and one for a test to spoil."""
    params = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 4))]
    optimizer = AdaBelief([{"params": [param]} for param in params], weight_decay=0.1, **switches)
    for _ in range(steps):
        give_gradients(params)
        optimizer.step()
    give_gradients(params)
    return params, optimizer


def give_gradients(params):
    for param in params:
        param.grad = torch.randn_like(param)


def sparse_gradient(param):
    param.grad = param.grad.to_sparse()


def other_shape(param):
    param.data = torch.ones(4, 4)


def transposed(param):
    param.data = param.data.t()


def fewer_rows(param):
    param.data = param.data[:1]


SPOILT = {
    "a sparse gradient": (sparse_gradient, "sparse gradients.*SparseAdam"),
    "data of another shape": (other_shape, "its data was replaced"),
    "data with rows and columns exchanged": (transposed, "its data was replaced"),
    "data in the same memory": (fewer_rows, "its data was replaced"),
}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_parameter_that_cannot_step_keeps_all_from_stepping(spoil, message, switches, steps):
    params, optimizer = two_parameters(steps, **switches)
    kept = params[1].detach().clone()
    spoil(params[1])
    with nothing_happens(optimizer), pytest.raises(ValueError, match=message):
        optimizer.step()
    params[1].data = kept
    give_gradients(params)
    optimizer.step()
    assert all(optimizer.state[param]["step"] == steps + 1 for param in params)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("grad_alone", [True, False])
def test_state_of_another_shape_than_its_parameter_is_refused(switches, grad_alone):
    params, optimizer = two_parameters(2, **switches)
    params[1].data = torch.ones(4, 4)
    if not grad_alone:
        params[1].grad = None
        params[1].grad = torch.ones(4, 4)
    with nothing_happens(optimizer), pytest.raises(ValueError, match=r"shape \(4, 4\).*its data was replaced"):
        optimizer.step()
    optimizer.state.pop(params[1])
    params[1].grad = torch.ones(4, 4)
    optimizer.step()
    assert optimizer.state[params[1]]["step"] == 1


VIEWS = {
    "conjugated": (lambda: torch.ones(3, dtype=torch.complex64).conj(), "lazily conjugated"),
    "negated": (lambda: torch.ones(3, dtype=torch.complex64).conj().imag, "lazily conjugated or negated"),
    "expanded": (lambda: torch.ones(1).expand(3), "expanded view"),
}


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize(("make", "message"), VIEWS.values(), ids=VIEWS)
def test_a_view_that_cannot_be_written_to_is_refused(make, message, switches):
    first, view = nn.Parameter(torch.ones(3)), nn.Parameter(make())
    optimizer = AdaBelief([{"params": [first]}, {"params": [view]}], **switches)
    give_gradients([first, view])
    with nothing_happens(optimizer), pytest.raises(ValueError, match=f"{message}.*clone"):
        optimizer.step()


def test_a_parameter_of_inference_mode_is_refused():
    with torch.inference_mode():
        made = torch.ones(3)
    first = nn.Parameter(torch.ones(3))
    first.grad = torch.ones(3)
    made.grad = torch.ones(3)
    optimizer = AdaBelief([{"params": [first]}, {"params": [made]}])
    with nothing_happens(optimizer), pytest.raises(ValueError, match="made in inference mode"):
        optimizer.step()


@pytest.mark.parametrize("foreach", [False, True])
def test_lazily_conjugated_gradients_are_those_they_stand_for(foreach):
    grads = [torch.randn(3, dtype=torch.complex64) for _ in range(7)]
    lazy, plain = (nn.Parameter(torch.ones(3, dtype=torch.complex64)) for _ in range(2))
    optimizers = [AdaBelief([param], foreach=foreach) for param in (lazy, plain)]
    for grad in grads:
        lazy.grad, plain.grad = grad.conj(), grad.conj().resolve_conj()
        assert lazy.grad.is_conj()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(lazy, plain) and optimizers[0].state[lazy]["step"] == 7


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_lazily_negated_gradients_are_those_they_stand_for(switches):
    lazy, plain = (nn.Parameter(torch.ones(3)) for _ in range(2))
    for param, grad in ((lazy, torch.ones(3, dtype=torch.complex64).conj().imag), (plain, torch.zeros(3))):
        param.grad = grad
        AdaBelief([param], **switches).step()
    assert torch.equal(lazy, plain)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_module_cast_after_a_step_goes_on_in_its_own_precision(switches, amsgrad):
    grads = [torch.randn(5, dtype=torch.float64) for _ in range(12)]
    module = nn.Linear(5, 1, bias=False)
    optimizer = AdaBelief(module.parameters(), lr=0.1, amsgrad=amsgrad, **switches)

    def step(param, optimizer, grad):
        param.grad = grad.reshape(param.shape).to(param.dtype)
        optimizer.step()

    step(module.weight, optimizer, grads[0])
    module.double()
    wide = nn.Parameter(module.weight.detach().clone())
    in_float64 = AdaBelief([wide], lr=0.1, amsgrad=amsgrad)
    in_float64.state[wide] = {
        key: value.double() if key != "step" else value.clone() for key, value in optimizer.state[module.weight].items()
    }
    for grad in grads[1:]:
        step(module.weight, optimizer, grad)
        step(wide, in_float64, grad)
    state = optimizer.state[module.weight]
    assert all(value.dtype == torch.float64 for key, value in state.items() if key != "step")
    assert state["step"] == 12
    torch.testing.assert_close(module.weight, wide, rtol=1e-12, atol=0)
    module.to(torch.bfloat16)
    step(module.weight, optimizer, grads[0])
    assert optimizer.state[module.weight]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("steps", [0, 2])
def test_a_kernel_that_cannot_be_had_keeps_the_groups_without_one_from_stepping(monkeypatch, tmp_path, steps):
    params, optimizer = two_parameters(steps, foreach=False)
    optimizer.param_groups[1]["fused"] = True
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(tmp_path))
    build.load_kernel.cache_clear()
    try:
        with nothing_happens(optimizer), pytest.raises(RuntimeError, match="no-such-compiler"):
            optimizer.step()
    finally:
        build.load_kernel.cache_clear()


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_kernel_of_one_group_that_cannot_be_had_keeps_all_from_stepping(monkeypatch, tmp_path, is_resumed):
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\ncase " $* " in *" -DPARAM=BFloat16 "*) exit 3;; esac\nexec {COMPILER} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(tmp_path))
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for param in params:
        param.grad = torch.ones_like(param)
    build.load_kernel.cache_clear()
    try:
        before, optimizer = (
            AdaBelief([{"params": [param]} for param in params], fused=fused) for fused in (False, True)
        )
        if is_resumed:
            before.step()
            optimizer.load_state_dict(before.state_dict())
        with nothing_happens(optimizer), pytest.raises(RuntimeError, match="exit code 3"):
            optimizer.step()
    finally:
        build.load_kernel.cache_clear()


def test_a_leaf_under_differentiable_is_refused():
    params, optimizer = two_parameters(0, differentiable=True)
    with nothing_happens(optimizer), pytest.raises(ValueError, match=r"differentiable=True.*param.clone\(\)"):
        optimizer.step()


def test_an_error_in_the_closure_changes_nothing():
    params, optimizer = two_parameters(2)

    def closure():
        raise ZeroDivisionError

    with nothing_happens(optimizer), pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
