"""Steps whose gradients are not finite: skipped whole or an error in every implementation; a state is reset."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module
from lightning_adabelief.optim.nonfinite import largest_norm

IMPLEMENTATIONS = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable forloop": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True),
    "compiled forloop": dict(foreach=False, compiled=True),
    "compiled foreach": dict(foreach=True, compiled=True),
    "compiled fused": dict(fused=True, compiled=True),
}
OPTIONS = {
    "defaults": dict(),
    "amsgrad, fixed decay": dict(amsgrad=True, weight_decay=0.1, fixed_decay=True),
    "coupled decay, maximize": dict(weight_decay=0.1, weight_decouple=False, maximize=True, rectify=False),
    "decay, warmup": dict(weight_decay=0.1, warmup=5, degenerated_to_sgd=False),
    "beta2 0": dict(betas=(0.9, 0.0), rectify=False),
    "bounded": dict(max_update_to_lr=0.3),
}
SHAPES = [(3,), (), (2, 4), (0,)]


@pytest.fixture(autouse=True)
def capturable_on_cpu(monkeypatch):
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])


def make_params(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_grads(params, t):
    generator = torch.Generator().manual_seed(t)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def snapshot(params, optimizer):
    """Return copies of the parameters and of their state."""
    return copy.deepcopy([(param.detach(), dict(optimizer.state[param])) for param in params])


def assert_unchanged(params, optimizer, before):
    for param, (value, state) in zip(params, before, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=0, atol=0, equal_nan=True)
        for key, was in state.items():
            torch.testing.assert_close(optimizer.state[param][key], was, rtol=0, atol=0, equal_nan=True, msg=key)


CASES = [
    pytest.param(implementation, options, id=f"{implementation}, {description}")
    for implementation, (description, options) in itertools.product(IMPLEMENTATIONS, OPTIONS.items())
    if "compiled" not in implementation or description.startswith(("amsgrad", "bounded"))  # compiling takes a second
]


@pytest.mark.parametrize(("implementation", "options"), CASES)
def test_a_skipped_step_leaves_no_trace_but_its_count(implementation, options):
    switches = dict(IMPLEMENTATIONS[implementation])
    compiled = switches.pop("compiled", False)
    params, undisturbed = make_params(), make_params()
    optimizer = AdaBelief(params, lr=1e-2, nonfinite="skip", **switches, **options)
    expected = AdaBelief(undisturbed, lr=1e-2, foreach=False, **options)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
    bad_steps = {0: math.nan, 3: math.inf, 9: 1e21}  # the very first too
    for t in range(12):
        set_grads(params, t)
        if t not in bad_steps:
            set_grads(undisturbed, t)
            expected.step()
            step()
            continue
        params[t % 2].grad.view(-1)[0] = bad_steps[t]
        before = snapshot(params, optimizer) if t else None
        step()
        if before:
            assert_unchanged(params, optimizer, before)
        else:
            assert all(not value.any() for state in optimizer.state.values() for value in state.values())
    assert optimizer.skipped_steps == len(bad_steps)
    for ours, theirs in zip(params, undisturbed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert optimizer.state[ours]["step"] == expected.state[theirs]["step"] == 12 - len(bad_steps)
    if compiled:
        assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor_compiles_a_step_that_may_be_skipped():
    params = make_params(shapes=[(3,), (2, 4)])
    optimizer = AdaBelief(params, lr=torch.tensor(1e-2), foreach=True, capturable=True, nonfinite="skip")
    step = torch.compile(optimizer.step)
    for t in range(3):
        set_grads(params, t)
        step()
    params[0].grad[1] = math.nan
    before = snapshot(params, optimizer)
    step()
    assert_unchanged(params, optimizer, before)
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_parameters_of_every_dtype_are_skipped(dtype, foreach):
    for capturable, bad in itertools.product((False, True), (math.nan, -math.inf)):
        params = make_params(dtype)
        optimizer = AdaBelief(params, nonfinite="skip", foreach=foreach, capturable=capturable)
        for t in range(3):
            set_grads(params, t)
            optimizer.step()
        params[2].grad[1, 1] = bad
        before = snapshot(params, optimizer)
        optimizer.step()
        assert_unchanged(params, optimizer, before)


@pytest.mark.parametrize(
    ("gradient", "dtype", "skipped"),
    [
        (4e18, torch.float32, False),
        (5e18, torch.float32, True),
        (-5e18, torch.float32, True),
        (5e18, torch.bfloat16, True),
        (65504.0, torch.float16, False),
        (1e21, torch.float64, False),
        (1e160, torch.float64, True),
    ],
)
def test_a_gradient_counts_as_infinite_from_where_its_square_in_the_state_may_be(gradient, dtype, skipped):
    param = torch.nn.Parameter(torch.ones(2, dtype=dtype))
    optimizer = AdaBelief([param], nonfinite="skip")
    for sign in (1, -1, 1, -1) * 3:
        param.grad = torch.tensor([sign * gradient, 0.0], dtype=dtype)
        optimizer.step()
    assert optimizer.skipped_steps == (12 if skipped else 0)
    assert optimizer.state[param]["exp_avg_var"].isfinite().all()
    assert largest_norm(torch.float32) == pytest.approx(4.6e18, rel=0.01)


class NoWaiting(TorchDispatchMode):
    """Raises where a number is read from a tensor, for which a program waits for its device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "the device is waited for"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("foreach", [False, True])
def test_nothing_waits_for_a_device_to_skip(foreach):
    params = [torch.nn.Parameter(torch.ones(3, device="meta")) for _ in range(2)]  # holds no numbers to wait for
    optimizer = AdaBelief(params, nonfinite="skip", foreach=foreach, weight_decay=0.1, amsgrad=True)
    for _ in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        with NoWaiting():
            optimizer.step()
    assert optimizer.state[params[0]]["step"].is_meta and optimizer.param_groups[0]["skipped_steps"].is_meta


def test_by_default_a_step_looks_at_no_gradient_and_keeps_no_count():
    params = make_params()
    optimizer = AdaBelief(params)
    set_grads(params, 0)
    params[0].grad[0] = math.nan
    optimizer.step()
    assert params[0].isnan().any() and optimizer.skipped_steps == 0
    assert "skipped_steps" not in optimizer.param_groups[0]
    assert optimizer.param_groups[0]["nonfinite"] == "propagate" and "nonfinite: propagate" in repr(optimizer)


def test_groups_that_skip_do_so_together_and_those_that_propagate_are_left_out():
    params = make_params(shapes=[(2,)] * 4)
    groups = [{"params": [param]} for param in params]
    groups[0]["nonfinite"] = groups[1]["nonfinite"] = "skip"
    optimizer = AdaBelief(groups)
    before = [param.detach().clone() for param in params]
    set_grads(params, 0)
    params[0].grad[0] = math.nan
    optimizer.step()
    moved = [not torch.equal(param, value) for param, value in zip(params, before, strict=True)]
    assert moved == [False, False, True, True] and optimizer.skipped_steps == 1
    set_grads(params, 1)
    params[2].grad[0] = math.nan
    optimizer.step()
    assert not torch.equal(params[0], before[0]) and params[2].isnan().any() and optimizer.skipped_steps == 1


def skip_once(optimizer, params):
    set_grads(params, 0)
    params[0].grad[0] = math.nan
    optimizer.step()


def test_the_count_goes_through_state_dicts_pickles_and_copies_and_on_from_there():
    params = make_params()
    optimizer = AdaBelief(params, nonfinite="skip")
    skip_once(optimizer, params)
    loaded = AdaBelief(params, nonfinite="skip")
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for copied in (loaded, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert copied.skipped_steps == 1
        skip_once(copied, copied.param_groups[0]["params"])
        assert copied.skipped_steps == 2
    assert optimizer.skipped_steps == 1


def test_what_is_done_with_a_nonfinite_step_belongs_to_who_loads():
    params = make_params()
    saved = AdaBelief(params).state_dict()
    optimizer = AdaBelief(params, nonfinite="skip")
    optimizer.load_state_dict(saved)
    skip_once(optimizer, params)
    assert optimizer.skipped_steps == 1 and optimizer.param_groups[0]["nonfinite"] == "skip"


def test_a_state_dict_from_before_these_options_loads():
    params = make_params()
    before = AdaBelief(params)
    set_grads(params, 0)
    before.step()
    saved = before.state_dict()
    for name in ("nonfinite", "max_update_to_lr"):
        del saved["param_groups"][0][name]
    optimizer = AdaBelief(params, nonfinite="skip", max_update_to_lr=2.0)
    optimizer.load_state_dict(saved)
    group = optimizer.param_groups[0]
    assert group["nonfinite"] == "skip" and group["max_update_to_lr"] == 2.0


@pytest.mark.parametrize("count", ["many", -1, math.nan, torch.ones(2)], ids=str)
def test_a_count_that_is_none_is_not_loaded(count):
    params = make_params()
    optimizer = AdaBelief(params, nonfinite="skip")
    skip_once(optimizer, params)
    saved = optimizer.state_dict()
    saved["param_groups"][0] |= {"skipped_steps": count, "lr": 0.5}
    with pytest.raises(ValueError, match="skipped_steps=.*nothing was loaded"):
        optimizer.load_state_dict(saved)
    assert optimizer.skipped_steps == 1 and optimizer.param_groups[0]["lr"] == 1e-3


def test_the_option_can_be_set_between_steps():
    params = make_params()
    optimizer = AdaBelief(params)
    set_grads(params, 0)
    optimizer.step()
    optimizer.param_groups[0]["nonfinite"] = "skip"
    before = snapshot(params, optimizer)
    skip_once(optimizer, params)
    assert_unchanged(params, optimizer, before)


@pytest.mark.parametrize("bad", ["scaled gradient", "found_inf"])
def test_a_gradient_scaler_that_leaves_unscaling_to_fused_is_understood(bad):
    params = make_params()
    optimizer = AdaBelief(params, fused=True, nonfinite="skip")
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4e18), torch.tensor(0.0)
    for param in params:
        param.grad = torch.full_like(param, 4e18)
    optimizer.step()  # gradients of 1, scaled
    assert optimizer.skipped_steps == 0 and optimizer.state[params[0]]["step"] == 1
    if bad == "found_inf":
        optimizer.found_inf.fill_(1.0)
    else:
        params[0].grad[0] = math.inf
    before = snapshot(params, optimizer)
    optimizer.step()
    assert_unchanged(params, optimizer, before)
    assert optimizer.skipped_steps == (bad != "found_inf")  # which the scaler counts


def test_grad_scaler_and_skip_go_together():
    params = make_params(shapes=[(3,)])
    optimizer = AdaBelief(params, nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((params[0] * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state[params[0]]["step"] == 2 and params[0].isfinite().all()


@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if "compiled" not in name])
def test_raise_names_the_parameters_and_changes_nothing(implementation):
    params = make_params()
    named = [(f"layer{i}.weight", param) for i, param in enumerate(params)]
    optimizer = AdaBelief(named, nonfinite="raise", **IMPLEMENTATIONS[implementation])
    for t in range(7):
        set_grads(params, t)
        optimizer.step()
    params[2].grad[0, 1:3] = math.nan
    params[1].grad.fill_(1e20)
    before = snapshot(params, optimizer)
    with pytest.raises(
        RuntimeError,
        match=r"^Gradients are not finite, or too large to be squared, in layer1.weight \(norm 1e\+20\), layer2.weight "
        r"\(norm nan\)\. This step changed nothing: lower lr, clip gradients by norm, or give nonfinite='skip'",
    ):
        optimizer.step()
    assert_unchanged(params, optimizer, before)


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_var", "max_exp_avg_var"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_raise_finds_a_state_that_is_not_finite_and_the_reset_it_names_makes_the_weights_move(key, bad):
    params = make_params()
    optimizer = AdaBelief(params, lr=1e-2, nonfinite="raise", amsgrad=True)
    for t in range(20):
        set_grads(params, t)
        optimizer.step()
    optimizer.state[params[2]][key][1, 1] = bad
    optimizer.state[params[1]][key].fill_(bad)
    kept = optimizer.state[params[2]]["exp_avg_var"][0].clone()
    first, second = r"parameter 1 of group 0 \(1 of 1 elements\)", r"parameter 2 of group 0 \(1 of 8 elements\)"
    message = f"The state .* in {first}, {second}.*reset_nonfinite_state"
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert optimizer.reset_nonfinite_state() == 2
    assert torch.equal(optimizer.state[params[2]]["exp_avg_var"][0], kept)
    assert optimizer.state[params[1]]["step"] == 0 and optimizer.state[params[2]]["step"] == 20
    before = [param.detach().clone() for param in params]
    for _ in range(3):
        optimizer.step()
    for param, value in zip(params, before, strict=True):
        moved = (param - value).abs()
        assert (moved > 0).all() and (moved < 0.2).all()
    assert optimizer.reset_nonfinite_state() == 0


def test_a_gradient_whose_square_is_infinite_stops_its_weight_and_the_reset_lets_it_go_on():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param], rectify=False)
    for t in range(30):
        param.grad = torch.tensor([1.0, 1.0, 1e21 if t == 10 else 1.0]) + 0.1 * torch.randn(3)
        optimizer.step()
    stopped = param[2].item()
    optimizer.step()
    assert param[2].item() == stopped
    assert optimizer.reset_nonfinite_state() == 1
    optimizer.step()
    assert 0 < abs(param[2].item() - stopped) < 0.01


def test_a_complex_state_is_reset_and_one_without_steps_left():
    params = make_params(torch.complex64)
    optimizer = AdaBelief(params)
    assert optimizer.reset_nonfinite_state() == 0
    set_grads(params, 0)
    optimizer.step()
    optimizer.state[params[0]]["exp_avg_var"][0] = complex(math.inf, 1)
    assert optimizer.reset_nonfinite_state() == 1
    assert torch.view_as_real(optimizer.state[params[0]]["exp_avg_var"]).isfinite().all()


@pytest.mark.parametrize("value", ["ignore", None, True, "Skip"])
def test_other_choices_are_refused(value):
    with pytest.raises(ValueError, match="Invalid nonfinite: .* must be 'propagate', 'skip' or 'raise'"):
        AdaBelief(make_params(), nonfinite=value)
