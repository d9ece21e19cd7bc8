"""The sums that a fused step takes on its way, against the same sums taken one by one in float64."""

import pytest
import torch

from lightning_adabelief import AdaBelief, beliefs
from lightning_adabelief.optim.averages import unpack_average
from lightning_adabelief.optim.fused.cpu import CHUNK
from lightning_adabelief.optim.step_sums import SUMS

CASES = {
    "plain": {},
    "amsgrad": dict(amsgrad=True),
    "decoupled decay": dict(weight_decay=0.1),
    "coupled decay": dict(weight_decay=0.1, weight_decouple=False),
    "ascent": dict(maximize=True, weight_decay=0.1, weight_decouple=False),
    "previous": dict(residual="previous", betas=(0.0, 0.99)),
    "bounded": dict(max_update_to_lr=0.3, rectify=False),
    "a step of SGD": dict(rectify=True),
    "a step that stays": dict(rectify=True, degenerated_to_sgd=False, weight_decay=0.1),
}
SHAPES = [(3, 5), (), (0,), (2 * CHUNK + 7,), (2000,), (70, 300)]
"""Shapes of parameters: one is several chunks long, and the next begins within a chunk; the last has short blocks."""


def make_model(dtype):
    generator = torch.Generator().manual_seed(0)
    return torch.nn.ParameterList(torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES)


def set_grads(model, step):
    generator = torch.Generator().manual_seed(100 + step)
    for param in model:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def take_steps(steps, dtype=torch.float64, **options):
    """Take fused steps, the last of which is asked for its sums."""
    model = make_model(dtype)
    stored = {"master_weight_bits": 16}  # what is stored of a weight is all that there is
    optimizer = AdaBelief(model.parameters(), lr=1e-3, fused=True, **{"rectify": False, **stored, **options})
    for step in range(steps - 1):
        set_grads(model, step)
        optimizer.step()
    before = [param.detach().clone() for param in model]
    momenta = [
        unpack_average(optimizer.state.get(param, {}).get("exp_avg", torch.zeros_like(param)), param, "exp_avg").clone()
        for param in model
    ]
    set_grads(model, steps - 1)
    optimizer.step_sums = {}
    optimizer.step()
    return model, optimizer, before, momenta


def sum_directly(param, before, momentum, state, group):
    """Return the sums by their definitions."""
    before, momentum, after = before.double(), momentum.double(), param.detach().double()
    grad = param.grad.double()
    decay = group["weight_decay"]
    used = -grad if group["maximize"] else grad
    used = used if group["weight_decouple"] else used + decay * before
    return {
        "grad_square": grad.square().sum(),
        "used_grad_square": used.square().sum(),
        "grad_momentum": (used * momentum).sum(),
        "momentum_square": momentum.square().sum(),
        "exp_avg_var": unpack_average(state["exp_avg_var"], param, "exp_avg_var").double().sum(),
        "update_square": (before - after).square().sum(),
        "weight_square": after.square().sum(),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_sums_are_those_of_the_definitions(options, dtype):
    check_sums(dtype, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_sums_over_averages_of_fewer_bits_are_those_of_their_numbers(options, bits, dtype):
    check_sums(dtype, {**options, "state_bits": bits})


def check_sums(dtype, options):
    model, optimizer, before, momenta = take_steps(3, dtype, **options)
    rtol = {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 2e-5)  # a float32's movement is its rounded weights'
    for param, weight, momentum in zip(model, before, momenta, strict=True):
        expected = sum_directly(param, weight, momentum, optimizer.state[param], optimizer.param_groups[0])
        sums = dict(zip(SUMS, optimizer.step_sums[param], strict=True))
        for name in SUMS:
            scale = (expected["used_grad_square"] * expected["momentum_square"]).sqrt()
            atol = rtol * float(scale) if name == "grad_momentum" else 1e-12
            # The sum of s_t is that of the numbers before they are rounded stochastically.
            own_rtol = 2e-3 if name == "exp_avg_var" and "state_bits" in options else rtol
            torch.testing.assert_close(
                sums[name], expected[name], rtol=own_rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize(("bits", "unit"), [(16, 2.0**-8), (24, 2.0**-16), (32, 2.0**-24)])
def test_update_of_bfloat16_weights_is_that_of_the_bits_that_are_kept(bits, unit):
    """The step, 1e-5, is a small part of the last place of a bfloat16: with 16 bits alone some weights move by one."""
    weight = torch.nn.Parameter(torch.ones(100_000, dtype=torch.bfloat16))
    optimizer = AdaBelief([weight], lr=1e-5, fused=True, rectify=False, master_weight_bits=bits)
    weight.grad = torch.ones_like(weight)
    optimizer.step_sums = {}
    optimizer.step()
    step = 1e-5 / 0.9  # in the first step m / sqrt(s) is 1 / beta1
    sums = dict(zip(SUMS, optimizer.step_sums[weight].tolist(), strict=True))
    moved_by_chance = step * unit if unit > step else step**2 + unit**2 / 4
    assert sums["update_square"] / 100_000 == pytest.approx(moved_by_chance, rel=0.2)


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_sums_change_no_weight_and_no_state(bits):
    asked, optimizer, *_ = take_steps(4, torch.float32, weight_decay=0.1, state_bits=bits)
    plain = make_model(torch.float32)
    other = AdaBelief(plain.parameters(), lr=1e-3, fused=True, rectify=False, weight_decay=0.1, state_bits=bits)
    for step in range(4):
        set_grads(plain, step)
        other.step()
    for ours, theirs in zip(asked, plain, strict=True):
        assert torch.equal(ours, theirs)
        for name, value in optimizer.state[ours].items():
            assert torch.equal(value, other.state[theirs][name])


def test_a_layer_in_its_first_step_has_no_part_in_the_cosine_whoever_takes_the_sums():
    cosines = []
    for asks in (True, False):
        first, later = (torch.nn.Parameter(torch.zeros(1000)) for _ in range(2))
        optimizer = AdaBelief([first, later], fused=True)
        generator = torch.Generator().manual_seed(0)
        first.grad = torch.randn(1000, generator=generator)
        optimizer.step()
        later.grad = torch.randn(1000, generator=generator)
        optimizer.step_sums = {} if asks else None
        optimizer.step()
        cosines.append(beliefs.measure(optimizer, torch.nn.ParameterList([first, later])).model["grad_momentum_cosine"])
    assert cosines == pytest.approx([1.0, 1.0], abs=1e-3)


def test_sums_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 2, 2):
            torch.set_num_threads(number)
            model, optimizer, *_ = take_steps(2, torch.float32)
            found.append(torch.stack([optimizer.step_sums[param] for param in model]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_only_the_step_that_is_asked_has_sums():
    model, optimizer, *_ = take_steps(2)
    assert set(optimizer.step_sums) == set(model)
    optimizer.step()
    assert optimizer.step_sums is None
    optimizer.step()
    assert optimizer.step_sums is None


def test_skipped_step_has_no_sums():
    model = make_model(torch.float32)
    optimizer = AdaBelief(model.parameters(), fused=True, nonfinite="skip")
    set_grads(model, 0)
    model[0].grad[0, 0] = torch.nan
    optimizer.step_sums = {}
    optimizer.step()
    assert not optimizer.step_sums


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_statistics_are_the_same_with_sums_and_without(options):
    model, optimizer, *_ = take_steps(30, torch.float32, **options)
    with_sums = beliefs.measure(optimizer, model)
    optimizer.step_sums = None
    without = beliefs.measure(optimizer, model)
    assert with_sums.layers.keys() == without.layers.keys()
    for name, values in without.layers.items():
        assert with_sums.layers[name] == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True), name
