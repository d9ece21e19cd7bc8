"""The fused implementation on the CPU: the same rule, whatever it is given, from a kernel compiled once."""

import itertools
import subprocess
import sys

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.fused import build, cpu, fused_adabelief
from lightning_adabelief.optim.fused.cpu import CHUNK
from lightning_adabelief.optim.low_precision import CORRECTIONS, read_master
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS
from lightning_adabelief.optim.tensors import StepTensors
from tests.optim.reference import assert_close, gradients, run

# 67 is no multiple of any vector's length; the empty and the 0-dim tensor stand between others.
SHAPES = [(3, 4), (67,), (0,), (), (2, 3, 5)]
START = [torch.linspace(-1, 1, shape.numel()).double().reshape(shape) for shape in map(torch.Size, SHAPES)]
KEYS = ("exp_avg", "exp_avg_var", "max_exp_avg_var")

GRID = [
    dict(
        rectify=rectify,
        amsgrad=amsgrad,
        weight_decouple=decouple,
        fixed_decay=fixed,
        weight_decay=decay,
        maximize=maximize,
        residual=residual,
        degenerated_to_sgd=not maximize,
        betas=(0.0 if residual == "previous" else 0.9, 0.99 if fixed else 0.999),
        eps=1e-8 if decouple else 1e-16,
        warmup=0.2 if maximize else 0,
        total_steps=40,
    )
    for rectify, amsgrad, decouple, fixed, decay, maximize, residual in itertools.product(
        (False, True),
        (False, True),
        (False, True),
        (False, True),
        (0.0, 1e-2),
        (False, True),
        ("updated", "previous"),
    )
]

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def assert_same(ours, our_optimizer, theirs, their_optimizer, rtol, state_rtol=None):
    """Parameters and state agree, each tensor to ``rtol`` of its largest entry."""
    for our, their in zip(ours, theirs, strict=True):
        if not our.numel():
            continue
        assert_close([our], [their], rtol)
        our_state, their_state = our_optimizer.state[our], their_optimizer.state[their]
        assert list(our_state) == list(their_state)
        assert torch.equal(our_state["step"], their_state["step"])
        for key in our_state.keys() & set(KEYS):
            assert_close([our_state[key]], [their_state[key]], state_rtol or rtol)


def both(grads, start, before_step=None, **options):
    """Run fused and forloop; return (parameters, optimizer) of each, fused first."""
    return [
        run(lambda p, f=f: AdaBelief(p, fused=f, **options), grads, start, None, before_step) for f in (True, False)
    ]


def step_both(make_param, grads, **options):
    """As ``both``, for one parameter that ``make_param`` lays out and gradients used as they are."""
    results = []
    for fused in (True, False):
        param = make_param()
        optimizer = AdaBelief([param], fused=fused, **options)
        for grad in grads:
            param.grad = grad
            optimizer.step()
        results.append(([param], optimizer))
    return results


def test_agrees_with_forloop_in_every_combination_of_options():
    grads = gradients(20, SHAPES)
    for options in GRID:
        fused, loop = both(grads, START, lr=1e-2, **options)
        assert_same(*fused, *loop, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", GRID[::9], ids=lambda options: str(GRID.index(options)))
def test_agrees_with_forloop_in_every_dtype(dtype, options):
    fused, loop = both(gradients(30, SHAPES, dtype=dtype), [v.to(dtype) for v in START], lr=1e-2, **options)
    # float32 arithmetic fuses a * b + c; a parameter stored narrower may then round the other way
    rtol = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2 * torch.finfo(dtype).eps)
    assert_same(*fused, *loop, rtol=rtol, state_rtol=None if dtype in (torch.float64, torch.float32) else 1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_number_is_read_and_rounded_as_torch_does(dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    # lr = 0.5 halves each number, which for subnormal ones rounds; the gradient is copied into exp_avg.
    options = dict(lr=0.5, weight_decay=1.0, rectify=True, betas=(0.0, 0.999), residual="previous")
    options |= dict(degenerated_to_sgd=False)
    ((fused,), optimizer), ((loop,), expected) = step_both(
        lambda: torch.nn.Parameter(every.clone()), [every.clone()], **options
    )
    torch.testing.assert_close(fused, loop, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        optimizer.state[fused]["exp_avg"], expected.state[loop]["exp_avg"], rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_16_bits_at_the_edges(dtype):
    info = torch.finfo(dtype)
    edges = [0.0, info.max, info.tiny, info.smallest_normal, 1 + info.eps / 2, 1 + 1.5 * info.eps, info.tiny / 1.5]
    grad = torch.tensor(edges + [-e for e in edges] + [float("inf"), float("-inf"), float("nan"), 1e5, 65519, 65520])
    start = torch.zeros(len(grad), dtype=dtype)
    corrections = [torch.zeros(len(grad), dtype=part) for part, _ in CORRECTIONS.values()]
    m, s, step = torch.zeros_like(grad), torch.zeros_like(grad), torch.zeros(())
    defaults = AdaBelief([torch.nn.Parameter(start)], lr=1.0, betas=(0.0, 0.9), residual="previous").defaults
    # The first step is SGD's: from 0 with lr = 1 it writes minus the float32 gradient.
    options = {name: defaults[name] for name in (*RULE_OPTIONS, *SCALE_OPTIONS)}
    fused_adabelief(StepTensors([start], [grad], [m], [s], [], [step], *([part] for part in corrections)), **options)
    # Half a place rounds away from 0 rather than to even, and what was taken away is there to be had again.
    expected = torch.where(grad.abs() == 1 + info.eps / 2, grad.sign() * (1 + info.eps), grad)
    torch.testing.assert_close(start, (-expected).to(dtype), rtol=0, atol=0, equal_nan=True)
    kept = grad.isnan() | (grad.abs() < 65536) if dtype == torch.float16 else grad == grad
    master = read_master(start, *corrections)
    torch.testing.assert_close(master[kept], -grad[kept], rtol=0, atol=2.0**-38, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_larger_than_a_threads_share_are_updated_whole(threads):
    shapes = [(5,), (2 * CHUNK + 3,), (CHUNK,), (0,), (CHUNK - 5,), (7,)]
    start = [torch.ones(shape) for shape in shapes]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fused, loop = both(gradients(7, shapes, dtype=torch.float32), start, lr=1e-2, amsgrad=True)
    finally:
        torch.set_num_threads(before)
    assert_same(*fused, *loop, rtol=1e-5)


def test_several_dtypes_and_late_starters_in_one_group():
    def late(optimizer, t):
        if t < 10:  # the second parameter gets its first gradient at step 11
            optimizer.param_groups[0]["params"][1].grad = None

    start = [START[0], START[1].float(), START[2].bfloat16(), START[3].half(), START[4].bfloat16()]
    grads = [[g.to(s.dtype) for g, s in zip(step, start, strict=True)] for step in gradients(30, SHAPES)]
    (fused, fused_optimizer), (loop, loop_optimizer) = both(grads, start, lr=1e-2, before_step=late)
    for a, b in zip(fused, loop, strict=True):
        torch.testing.assert_close(a, b)
    assert [int(fused_optimizer.state[p]["step"]) for p in fused] == [30, 20, 30, 30, 30]


def transposed():
    return torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4).t())


def channels_last():
    return torch.nn.Parameter(torch.linspace(-1, 1, 120).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last))


def with_gaps():
    return torch.nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6)[:, ::2])


def expanded_view():
    return torch.nn.Parameter(torch.linspace(-1, 1, 24).reshape(2, 3, 4)[:, :1])


@pytest.mark.parametrize("make", [transposed, channels_last, with_gaps, expanded_view])
@pytest.mark.parametrize("grad_layout", ["the parameter's", "contiguous", "negated view"])
def test_any_layout_of_parameter_and_gradient(make, grad_layout):
    grads = []
    for (grad,) in gradients(10, [make().shape], dtype=torch.float32):
        laid_out = torch.empty_like(make()).copy_(grad)
        if grad_layout == "contiguous":
            laid_out = grad.contiguous()
        elif grad_layout == "negated view":
            laid_out = torch._neg_view(laid_out)
        grads.append(laid_out.detach())
    fused, loop = step_both(make, grads, lr=1e-2, amsgrad=True)
    assert fused[0][0].stride() == make().stride()
    assert_same(*fused, *loop, rtol=1e-5)


def test_state_of_another_shape_is_not_read_past_its_end():
    param = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = AdaBelief([param], fused=True)
    param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.state[param]["exp_avg"] = torch.zeros(2)
    with pytest.raises(ValueError, match="its data was replaced"):
        optimizer.step()
    optimizer.state[param] |= {"exp_avg": torch.zeros(4, 3), "exp_avg_var": torch.zeros(2)}
    with pytest.raises(RuntimeError, match="size"):
        optimizer.step()


def test_gradients_are_left_as_they_are():
    for options in (dict(), dict(maximize=True), dict(weight_decay=0.1, weight_decouple=False)):
        param = torch.nn.Parameter(torch.ones(5))
        param.grad = torch.arange(5.0)
        AdaBelief([param], fused=True, **options).step()
        assert torch.equal(param.grad, torch.arange(5.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [transposed, with_gaps])  # by the kernel, and by the rule
def test_grad_scale_divides_the_gradient_and_writes_it_back(make, dtype):
    scaled, plain = (torch.nn.Parameter(make().detach().to(dtype)) for _ in range(2))
    grad = torch.full_like(plain, 0.3).detach()
    scaled.grad, plain.grad = grad * 8, grad.clone()
    optimizer = AdaBelief([scaled], fused=True, lr=1e-2)
    optimizer.grad_scale = torch.tensor(8.0)
    optimizer.step()
    AdaBelief([plain], fused=True, lr=1e-2).step()
    assert torch.equal(scaled, plain) and torch.equal(scaled.grad, grad)


def test_found_inf_changes_nothing_not_even_the_step():
    param = torch.nn.Parameter(torch.ones(5))
    optimizer = AdaBelief([param], fused=True, weight_decay=0.1, lr=1e-2)
    param.grad = torch.full((5,), 0.5)
    optimizer.step()
    before, state = param.detach().clone(), {k: v.clone() for k, v in optimizer.state[param].items()}
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    param.grad = torch.tensor([1.0, float("inf"), float("nan"), 2.0, 3.0])
    grad = param.grad.clone()
    optimizer.step()
    assert torch.equal(param, before)
    assert torch.equal(param.grad.nan_to_num(), grad.nan_to_num())
    assert all(torch.equal(optimizer.state[param][key], value) for key, value in state.items())
    optimizer.found_inf = torch.tensor(0.0)
    param.grad = torch.full((5,), 2.0)
    optimizer.step()
    assert optimizer.state[param]["step"] == 2 and torch.equal(param.grad, torch.full((5,), 0.5))


def test_grad_scaler_unscales_by_itself_so_that_clipping_can_come_between():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param], fused=True)
    assert not hasattr(optimizer, "_step_supports_amp_scaling")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((param * torch.tensor([3.0, 4.0, 0.0])).sum()).backward()
    scaler.unscale_(optimizer)
    assert torch.nn.utils.clip_grad_norm_(param, 1.0) == 5
    scaler.step(optimizer)
    torch.testing.assert_close(optimizer.state[param]["exp_avg"], torch.tensor([0.06, 0.08, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_after_a_load_from_fused_to_forloop_and_back(first, dtype):
    start = [v.to(dtype) for v in START]
    grads = gradients(40, SHAPES, dtype=dtype)
    straight, _ = run(lambda p: AdaBelief(p, lr=1e-2), grads, start)
    half, optimizer = run(lambda p: AdaBelief(p, lr=1e-2, fused=first), grads[:20], start)

    def resumed(params):
        loaded = AdaBelief(params, lr=1e-2, fused=not first)
        loaded.load_state_dict(optimizer.state_dict())
        assert loaded.implementations == ["forloop" if first else "fused"]  # not the checkpoint's
        for param in params:
            step = loaded.state[param]["step"]
            assert step.dtype == torch.float32 and step.device == param.device and step == 20
            assert loaded.state[param]["exp_avg"].dtype == torch.float32
        return loaded

    after, _ = run(resumed, grads[20:], [p.detach() for p in half])
    for a, b in zip(after, straight, strict=True):
        torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5, atol=1e-5)


def test_a_backward_pass_through_weights_since_updated_is_refused():
    weight, x = torch.nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)
    loss = (weight * x).sum()
    weight.grad = torch.ones(3)
    AdaBelief([weight], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_parameter_that_fused_cannot_serve_is_an_error(dtype):
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point Tensors of supp"):
        AdaBelief([param], fused=True).step()


def test_a_tensor_lr_is_the_number_it_holds():
    grads = gradients(10, SHAPES, dtype=torch.float32)
    start = [v.float() for v in START]
    tensor, _ = run(lambda p: AdaBelief(p, fused=True, lr=torch.tensor(0.01, dtype=torch.float64)), grads, start)
    number, _ = run(lambda p: AdaBelief(p, fused=True, lr=0.01), grads, start)
    assert all(torch.equal(a, b) for a, b in zip(tensor, number, strict=True))


def test_implementations_that_exclude_each_other_are_errors():
    param = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        AdaBelief([param], fused=True, foreach=True)
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        AdaBelief([param], fused=True, differentiable=True)


def test_a_new_model_or_option_compiles_nothing(monkeypatch):
    build.load_kernel(build.FLOAT32)
    monkeypatch.setattr(build, "_run_compiler", None)
    for shapes, options in (([(3,)], dict()), ([(5, 5), (2,)] * 3, dict(lr=3e-4, amsgrad=True, rectify=False))):
        params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
        for param in params:
            param.grad = torch.ones_like(param)
        AdaBelief(params, fused=True, **options).step()
        assert all((param < 1).all() for param in params)


def test_a_step_on_several_kinds_of_tensors_loads_a_kernel_for_each(monkeypatch):
    loaded = []
    monkeypatch.setattr(cpu, "load_kernel", lambda kind: loaded.append(kind) or build.load_kernel(kind))
    params = [torch.nn.Parameter(torch.ones(64, 64, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for param in params:
        param.grad = torch.ones_like(param)
    AdaBelief(params, lr=0.1, fused=True, state_bits=8).step()
    assert set(loaded) == {build.Kind("float", "float", "uint8_t"), build.Kind("BFloat16", "BFloat16", "uint8_t", 16)}
    assert all((param < 1).all() for param in params)


FORK = """
import os, signal, torch
from lightning_adabelief import AdaBelief
torch.set_num_threads(2)
param = torch.nn.Parameter(torch.ones(1 << 18))
param.grad = torch.ones_like(param)
optimizer = AdaBelief([param], fused=True)
optimizer.step()
child = os.fork()
if child == 0:
    signal.alarm(20)
    optimizer.step()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
optimizer.step()
"""


def test_a_fork_after_a_step_on_two_threads_does_not_hang():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True)
