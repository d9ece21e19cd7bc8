"""Steps with averages in 16 and 8 bits: the same by every implementation, and what s_t follows."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adabelief import AdaBelief, release_gradients
from lightning_adabelief.optim import state as state_module
from lightning_adabelief.optim.averages import unpack_average
from lightning_adabelief.optim.packing import find_packed_shape
from tests.optim.optimizer_info import inputs
from tests.optim.test_low_precision import train_on_digits

BITS = [16, 8]
SHAPES = [(32, 128), (70, 3, 43), (7,), (5000,), (3, 2)]
"""Three that have fewer bits: whole blocks, short ones and one row; two small ones that have not."""

DTYPES = {32: torch.float32, 16: torch.bfloat16, 8: torch.uint8}
"""The dtype of an average, by its bits."""

NAMES = ("exp_avg", "exp_avg_var", "max_exp_avg_var")


@pytest.fixture
def capturable_on_cpu(monkeypatch):
    """Lets ``capturable=True`` run eagerly where it is refused: the arithmetic is the device's."""
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])


def make_params(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_grads(params, t):
    generator = torch.Generator().manual_seed(1000 + t)
    for param in params:
        scale = 10.0 ** torch.randint(-3, 1, param.shape, generator=generator)
        param.grad = (torch.randn(param.shape, generator=generator) * scale).to(param.dtype)


def train(params, steps, first=0, **options):
    optimizer = AdaBelief(params, **options)
    go_on(optimizer, params, steps, first)
    return optimizer


def go_on(optimizer, params, steps, first=0):
    for t in range(first, first + steps):
        set_grads(params, t)
        optimizer.step()


def read(optimizer, param):
    """Return the averages of a parameter in floating point, by name."""
    state = optimizer.state[param]
    return {name: unpack_average(state[name], param, name) for name in NAMES if name in state}


def assert_same(first, second):
    """Two runs have the same weights and the same bytes of state."""
    for ours, theirs in zip(first.param_groups, second.param_groups, strict=True):
        for our, their in zip(ours["params"], theirs["params"], strict=True):
            assert torch.equal(our, their)
            our_state, their_state = first.state[our], second.state[their]
            assert our_state.keys() == their_state.keys()
            assert all(torch.equal(our_state[key], their_state[key]) for key in our_state)


@pytest.mark.parametrize("bits", BITS)
def test_large_parameters_have_fewer_bits_and_small_ones_keep_32(bits):
    params = make_params()
    optimizer = train(params, 2, state_bits=bits, amsgrad=True)
    for param in params:
        is_large = param.numel() >= 4096
        shape = find_packed_shape(param.shape) if is_large and bits == 8 else param.shape
        for name in NAMES:
            value = optimizer.state[param][name]
            assert value.shape == shape and value.dtype == DTYPES[bits if is_large else 32]


def test_averages_in_8_bits_need_rows_of_64_and_those_in_16_do_not():
    params = make_params(shapes=[(1024, 4, 3, 3)])
    dtypes = {bits: train(params, 1, state_bits=bits).state[params[0]]["exp_avg"].dtype for bits in BITS}
    assert dtypes == {16: torch.bfloat16, 8: torch.float32}


@pytest.mark.parametrize("kwargs", inputs("foreach", "fused"))
def test_every_implementation_is_the_forloop(kwargs):
    bits, dtype = (8, torch.bfloat16) if kwargs["fused"] else (16, torch.float32)
    runs = []
    for switches in ({}, dict(foreach=False, fused=False)):
        params = make_params(dtype)
        runs.append((params, train(params, 8, state_bits=bits, **kwargs | switches)))
    (ours, our_optimizer), (theirs, their_optimizer) = runs
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5 if dtype == torch.float32 else 0.01, atol=1e-6)
        for name, average in read(their_optimizer, their).items():
            # Rounded otherwise in the last place, a number may seldom fall to the next code.
            found, largest = read(our_optimizer, our)[name], average.abs().max().item()
            tolerance = 0.1 if bits == 8 else 0.01
            torch.testing.assert_close(found, average, rtol=tolerance, atol=tolerance * largest)
            assert ((found - average).abs() > 1e-5 * average.abs()).float().mean() < 0.001


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach"))
def test_capturable_is_the_plain_step(kwargs, capturable_on_cpu):
    runs = []
    for capturable in (True, False):
        params = make_params(shapes=SHAPES[:3])
        runs.append((params, train(params, 7, state_bits=8, capturable=capturable, **kwargs)))
    (ours, our_optimizer), (theirs, their_optimizer) = runs
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)
        for name, average in read(their_optimizer, their).items():
            found = read(our_optimizer, our)[name]
            assert ((found - average).abs() > 1e-4 * average.abs()).float().mean() < 0.01


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_a_capturable_step_never_waits_for_the_device(bits, foreach, capturable_on_cpu):
    class NoSync(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return func(*args, **kwargs or {})

    params = make_params()
    options = dict(foreach=foreach, capturable=True, amsgrad=True, nonfinite="skip")
    optimizer = AdaBelief(params, state_bits=bits, **options)
    set_grads(params, 0)
    with NoSync():
        optimizer.step()
        optimizer.step()


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_a_weight_moves_by_the_averages_before_they_are_coded(bits, foreach):
    packed, plain = make_params(), make_params()
    options = dict(rectify=False, weight_decay=0.1, amsgrad=True, foreach=foreach)
    optimizers = train(packed, 1, state_bits=bits, **options), train(plain, 1, **options)
    for ours, theirs in zip(packed, plain, strict=True):
        assert torch.equal(ours, theirs)
    go_on(optimizers[0], packed, 1, first=1)
    go_on(optimizers[1], plain, 1, first=1)
    assert torch.equal(packed[2], plain[2]) and not torch.equal(packed[0], plain[0])
    torch.testing.assert_close(packed, plain, rtol=0.05, atol=1e-3)


def test_digits_are_learned_as_with_floats():
    expected, _ = train_on_digits(torch.float32, 1e-3, foreach=True)
    for dtype, bits in ((torch.float32, 8), (torch.bfloat16, 16)):
        loss, _ = train_on_digits(dtype, 1e-3, state_bits=bits, foreach=True)
        assert loss == pytest.approx(expected, rel=0.05)


def run_on_noise(noise_of_step, steps, **options):
    """Return the final averages of weights that see only noise; ``noise_of_step`` gives its size a weight."""
    param = nn.Parameter(torch.zeros(32, 128))
    optimizer = AdaBelief([param], lr=1e-3, betas=(0.9, 0.99), rectify=False, **options)
    generator = torch.Generator().manual_seed(0)
    for t in range(steps):
        param.grad = torch.randn(param.shape, generator=generator) * noise_of_step(t)
        optimizer.step()
    return read(optimizer, param)


@pytest.fixture(scope="module")
def fallen_in_floats():
    return run_on_noise(fall_a_hundredfold, 1300)["exp_avg_var"]


def fall_a_hundredfold(t):
    """Noise that falls in whole blocks, and in others in every second weight."""
    noise = torch.ones(32, 128)
    if t >= 100:
        noise[:16] = 0.01
        noise[16:, ::2] = 0.01
    return noise


@pytest.mark.parametrize("bits", BITS)
def test_s_follows_gradient_noise_that_falls_a_hundredfold(bits, fallen_in_floats):
    found = run_on_noise(fall_a_hundredfold, 1300, state_bits=bits)["exp_avg_var"]
    for fallen in (slice(0, 16), slice(0, 128)), (slice(16, 32), slice(0, 128, 2)):
        expected = fallen_in_floats[fallen].mean().item()
        assert expected < 1e-4
        assert found[fallen].mean().item() == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize("bits", BITS)
def test_the_largest_s_follows_noise_that_grows_and_else_stays(bits):
    def grow_tenfold(t):
        noise = torch.ones(32, 128)
        noise[:, ::2] = 1 + 9 * min(t / 200, 1)
        return noise

    exact, found = (run_on_noise(grow_tenfold, 300, amsgrad=True, state_bits=n)["max_exp_avg_var"] for n in (32, bits))
    for columns in (slice(0, 128, 2), slice(1, 128, 2)):
        # The maximum is of s_t as it is coded, so up to a code higher.
        allowed = 0.1 if bits == 8 else 0.01
        assert found[:, columns].mean().item() == pytest.approx(exact[:, columns].mean().item(), rel=allowed)


def silent_s(bits, loudness):
    """Return s_t, over what eps alone makes of it, of weights without a gradient, beside one that has some."""
    param = nn.Parameter(torch.zeros(64, 128))
    optimizer = AdaBelief([param], betas=(0.9, 0.9), eps=1e-16, state_bits=bits)
    for _ in range(150):
        param.grad = torch.zeros(64, 128)
        param.grad[:, 0] = loudness * torch.randn(64)
        optimizer.step()
    return read(optimizer, param)["exp_avg_var"][:, 1:] / (1e-16 / (1 - 0.9))


@pytest.mark.parametrize("bits", BITS)
def test_the_floor_that_eps_makes_is_kept_on_average_alone_and_beside_larger_ones(bits):
    torch.manual_seed(0)
    for loudness in (0.0, 1e-5):
        found = silent_s(bits, loudness)
        assert found.mean().item() == pytest.approx(1, rel=0.05)
        assert found.std() < (1e-4 if bits == 8 and loudness == 0.0 else 0.3)  # exact is the largest of a block


def test_beside_much_larger_ones_s_is_lifted_over_that_floor_in_8_bits_and_not_in_16():
    torch.manual_seed(0)
    assert silent_s(8, 1.0).min() > 100
    assert silent_s(16, 1.0).mean().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("foreach", [False, True])
def test_groups_may_have_their_own_bits_and_one_may_be_added_with_others(bits, foreach):
    params, later = make_params(), make_params(shapes=[(64, 64)])
    optimizer = AdaBelief([{"params": params[:1]}, {"params": params[1:], "state_bits": bits}], foreach=foreach)
    optimizer.add_param_group({"params": later, "state_bits": 24 - bits})
    go_on(optimizer, [*params, *later], 3)
    kinds = [optimizer.state[param]["exp_avg"].dtype for param in (*params[:2], *later)]
    assert kinds == [DTYPES[32], DTYPES[bits], DTYPES[24 - bits]]
    assert repr(optimizer).count(f"state_bits: {bits}") == 1


@pytest.mark.parametrize("before", [32, 16, 8])
@pytest.mark.parametrize("after", [32, 16, 8])
def test_the_bits_may_be_changed_in_a_run(before, after):
    params = make_params()
    optimizer = train(params, 5, state_bits=before, amsgrad=True)
    expected = [read(optimizer, param) for param in params]
    optimizer.param_groups[0]["state_bits"] = after
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[0]["betas"] = (0.999999, 0.999999)  # a step that hardly changes the averages
    go_on(optimizer, params, 1, first=5)
    for param, averages in zip(params, expected, strict=True):
        dtype = DTYPES[after if param.numel() >= 4096 else 32]
        for name, average in read(optimizer, param).items():
            assert optimizer.state[param][name].dtype == dtype
            error = (average - averages[name]).abs().sum() / averages[name].abs().sum()
            assert error < {32: 1e-3, 16: 0.005, 8: 0.03}[min(before, after)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("switches", [dict(foreach=False), dict(foreach=True), dict(fused=True)], ids=str)
def test_released_gradients_are_stepped_as_usual_to_the_bit(bits, switches):
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 64))
        named = list(model.named_parameters())
        groups = [{"params": named[:1], "state_bits": 8}, {"params": named[1:]}]
        return model, AdaBelief(groups, lr=1e-2, rectify=False, amsgrad=True, state_bits=bits, **switches)

    (usual, optimizer), (released, its_optimizer) = make(), make()
    release_gradients(released, its_optimizer)
    for t in range(4):
        batch = torch.randn(4, 64, generator=torch.Generator().manual_seed(t))
        for model, each in ((usual, optimizer), (released, its_optimizer)):
            each.zero_grad()
            model(batch).square().mean().backward()
            each.step()
    assert_same(its_optimizer, optimizer)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_a_skipped_step_leaves_the_bytes_as_they_are(bits, capturable, foreach, capturable_on_cpu):
    params, undisturbed = make_params(), make_params()
    options = dict(state_bits=bits, amsgrad=True, weight_decay=0.1, foreach=foreach, capturable=capturable)
    optimizer = AdaBelief(params, nonfinite="skip", **options)
    expected = train(undisturbed, 4, **options)
    for t in range(4):
        for bad in (math.nan, None):
            set_grads(params, t)
            if bad is not None:
                params[1].grad[0, 0, 0] = bad
            optimizer.step()
    assert optimizer.skipped_steps == 4
    for ours, theirs in zip(params, undisturbed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        for name in NAMES:
            ours_bytes, theirs_bytes = optimizer.state[ours][name], expected.state[theirs][name]
            assert (ours_bytes != theirs_bytes).float().mean() < 0.001


@pytest.mark.parametrize("bits", BITS)
def test_a_state_that_is_not_finite_is_told_by_name_and_reset_in_8_bits_with_its_block(bits):
    params = make_params()
    broken = slice(0, 128) if bits == 8 else slice(7, 8)
    count = 128 if bits == 8 else 1
    optimizer = train(params, 3, state_bits=bits, amsgrad=True)
    set_grads(params, 3)
    params[0].grad[5, 7] = 1e30
    optimizer.step()
    assert not read(optimizer, params[0])["exp_avg_var"][5, broken].isfinite().any()
    optimizer.param_groups[0]["nonfinite"] = "raise"
    set_grads(params, 4)
    with pytest.raises(RuntimeError, match=rf"parameter 0 of group 0 \({count} of 4096 elements\)"):
        optimizer.step()
    healthy = read(optimizer, params[0])
    assert optimizer.reset_nonfinite_state() == count
    for name, average in read(optimizer, params[0]).items():
        others = torch.arange(32) != 5
        torch.testing.assert_close(average[others], healthy[name][others], rtol=0.05, atol=0)
        expected = 0.0 if name == "exp_avg" else average[others].mean().item()
        torch.testing.assert_close(average[5, broken], torch.full((count,), expected), rtol=0.07, atol=0)
    with torch.no_grad():
        params[0][5].nan_to_num_(0.0)
    go_on(optimizer, params, 1, first=4)
    assert all(param.isfinite().all() for param in params)


@pytest.mark.parametrize("bits", BITS)
def test_a_copy_of_an_adam_goes_on_in_fewer_bits(bits):
    runs = []
    for state_bits in (32, bits):
        params = make_params()
        adam = torch.optim.Adam(params)
        go_on(adam, params, 5)
        optimizer = AdaBelief.like(adam)
        optimizer.param_groups[0]["state_bits"] = state_bits
        before = [param.detach().clone() for param in params]
        go_on(optimizer, params, 1, first=5)
        assert optimizer.state[params[0]]["exp_avg"].dtype == DTYPES[state_bits]
        runs.append([param.detach() - was for param, was in zip(params, before, strict=True)])
    for expected, found in zip(*runs, strict=True):
        assert (found - expected).norm() < (0.05 if bits == 8 else 0.01) * expected.norm()
