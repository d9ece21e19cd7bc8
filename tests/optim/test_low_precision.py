"""Weights in bfloat16 and float16: a step moves what float32 would move, and the bits it needs are kept and saved."""

import copy
import io

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.low_precision import (
    CORRECTIONS,
    MISSING_BITS,
    make_keys,
    make_seed,
    read_master,
    write_master,
)
from tests.optim.reference import original

NARROW = list(MISSING_BITS)
BITS = [32, 24, 16]
SWITCHES = [dict(foreach=False), dict(foreach=True), dict(fused=True)]
SPECIAL = [0.0, 1e-45, 1.1754942e-38, 1.1754944e-38, 2.0**-25, 2.0**-24, 2.0**-14, 1 - 2.0**-24, 1.0, 1 + 2.0**-8]
SPECIAL += [1 + 2.0**-11, 65503.0, 65519.0, 65520.0, 65536.0, 3.3895e38, 3.4028235e38, float("inf"), float("nan")]


def numbers():
    """Every kind of float32: of all exponents, near powers of two, and the special ones, of both signs."""
    drawn = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0))
    exponents = torch.arange(1, 255) << 23
    near = torch.cat([exponents + offset for offset in (-1, 0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xFFF, 0x1000)])
    special = torch.tensor(SPECIAL)
    return torch.cat([drawn.int().view(torch.float32), near.int().view(torch.float32), special, -special])


def split(master, dtype, bits, key=0):
    """Return the weight and both parts of the correction of a master weight."""
    weight = torch.empty_like(master, dtype=dtype)
    parts = [
        torch.empty_like(master, dtype=part) if bits >= bits_with_it else None
        for part, bits_with_it in CORRECTIONS.values()
    ]
    write_master(weight, *parts, master, key)
    return weight, *parts


def test_a_bfloat16_and_16_bits_are_any_float32():
    master = numbers()
    restored = read_master(*split(master, torch.bfloat16, 32))
    same = restored.view(torch.int32) == master.view(torch.int32)
    assert (same | (restored.isnan() & master.isnan())).all()


def test_a_float16_and_16_bits_are_any_float32_in_its_range():
    master = numbers()
    master = master[master.isnan() | (master.abs() < 65536)]
    restored = read_master(*split(master, torch.float16, 32))
    normal = master.isnan() | (master.abs() >= 2.0**-14)
    torch.testing.assert_close(restored[normal], master[normal], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(restored, master, rtol=0, atol=2.0**-38, equal_nan=True)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_weight_is_the_nearest_to_its_master_and_the_correction_counts_65536ths_of_its_place(dtype):
    master = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    master = master[master.abs() >= 2.0**-14]  # below, the places of float16 are all alike
    weight, high, low = split(master, dtype, 32)
    correction = 256 * high.int() + low
    distance, nearest = ((w.double() - master.double()).abs() for w in (weight, master.to(dtype)))
    assert torch.equal(distance, nearest)  # a half may go either way
    exponent = torch.frexp(weight.double().abs()).exponent.double()
    place = 2.0 ** (exponent - 1) * torch.finfo(dtype).eps
    below = (correction < 0) & (weight.double().abs() == 2.0 ** (exponent - 1))  # under a power of two places are half
    counted = weight.double() + weight.double().sign() * correction * place / 65536 * torch.where(below, 0.5, 1.0)
    assert torch.equal(counted, master.double())


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("bits", [24, 16])
def test_fewer_bits_are_rounded_without_bias_to_a_neighbour(bits, dtype):
    master = torch.full((100_000,), 0.3)
    rounded = read_master(*split(master, dtype, bits, make_keys([make_seed(0, 3)], [7])[0])).double()
    place = 0.25 * torch.finfo(dtype).eps / (256 if bits == 24 else 1)
    assert (rounded - 0.3).abs().max() < place and len(rounded.unique()) == 2
    assert abs(rounded.mean() - master[0].double()) < 5 * place / 2 / 100_000**0.5
    exact = read_master(*split(torch.full((1000,), 0.5), dtype, bits, 99))
    assert (exact == 0.5).all()  # what has no more bits stays, whatever the draw


def test_draws_differ_by_seed_parameter_step_and_element_and_are_the_same_again():
    master = torch.full((64,), 0.3)

    def draw(seed=0, position=0, step=1):
        key = make_keys([make_seed(seed, position)], [step])[0]
        return tuple(split(master, torch.bfloat16, 16, key)[0].tolist())

    assert len({draw(), draw(seed=1), draw(position=1), draw(step=2)}) == 4
    assert draw() == draw() == draw(step=torch.tensor(1.0, dtype=torch.float64))
    assert len(set(draw())) == 2


def gradients_for(shape, dtype, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(steps)]


def train(param, grads, **options):
    optimizer = AdaBelief([param], **options)
    for grad in grads:
        param.grad = torch.empty_like(param).copy_(grad)
        optimizer.step()
    return optimizer


def master_of(optimizer, param):
    return read_master(param, *map(optimizer.state[param].get, CORRECTIONS))


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_with_32_bits_a_bfloat16_run_is_the_float32_run_to_the_bit(switches):
    start = torch.randn(33, 67, generator=torch.Generator().manual_seed(0)).bfloat16()
    grads = gradients_for(start.shape, torch.bfloat16, 30)
    narrow, wide = nn.Parameter(start.clone()), nn.Parameter(start.float())
    options = dict(lr=1e-4, weight_decay=0.1, amsgrad=True, warmup=5, **switches)
    optimizer = train(narrow, grads, **options)
    train(wide, grads, **options)
    assert torch.equal(master_of(optimizer, narrow), wide)
    assert torch.equal(narrow, wide.bfloat16())


LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "transposed": lambda t: t.t().contiguous().t(),
    "with gaps": lambda t: torch.stack([t, t], dim=-1)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_every_implementation_rounds_alike(bits, dtype, layout):
    start = torch.randn(64, 133, generator=torch.Generator().manual_seed(0)).mul(0.1).to(dtype)
    grads = gradients_for(start.shape, dtype, 12)
    found = []
    for switches in SWITCHES:
        first = nn.Parameter(torch.ones(2))  # of 32 bits, in the same group
        param = nn.Parameter(LAYOUTS[layout](start.clone()))
        optimizer = AdaBelief([first, param], lr=1e-3, weight_decay=0.1, master_weight_bits=bits, **switches)
        for grad in grads:
            first.grad, param.grad = torch.ones(2), torch.empty_like(param).copy_(grad)
            optimizer.step()
        found.append((param.detach(), master_of(optimizer, param)))
    (loop, loop_master), *others = found
    place = 2 * torch.finfo(dtype).eps / {32: 2.0**12, 24: 2.0**8, 16: 1}[bits]
    for weight, master in others:
        torch.testing.assert_close(master, loop_master, rtol=place, atol=1e-6)
        assert (weight != loop).float().mean() < 0.005  # other draws would differ in half of them


def digits():
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16).float(), torch.tensor(labels)


def train_on_digits(dtype, lr, steps=250, **options):
    """Train an MLP; return its loss over all digits in float32, and how many of its weights have moved."""
    pixels, labels = digits()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model.to(torch.bfloat16).to(dtype)  # the same start
    start = [param.detach().clone() for param in model.parameters()]
    optimizer = AdaBelief(model.parameters(), lr=lr, rectify=False, **options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels[chosen].to(dtype)).float(), labels[chosen]).backward()
        optimizer.step()
    moved = sum(int((p != s).sum()) for p, s in zip(model.parameters(), start, strict=True))
    share = moved / sum(p.numel() for p in model.parameters() if p.grad.any())
    masters = [master_of(optimizer, p) if p.dtype in MISSING_BITS else p for p in model.parameters()]
    model.float().load_state_dict(dict(zip(model.state_dict(), masters, strict=True)))
    return nn.functional.cross_entropy(model(pixels), labels).item(), share


@pytest.mark.parametrize("lr", [1e-3, 1e-4])
def test_digits_are_learned_in_bfloat16_as_in_float32(lr):
    expected, _ = train_on_digits(torch.float32, lr, fused=True)
    for bits in BITS:
        loss, moved = train_on_digits(torch.bfloat16, lr, master_weight_bits=bits, fused=True)
        assert loss == pytest.approx(expected, rel=0.05)  # rounded to nearest 5 times as large
        assert moved > 0.8


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_weight_decay_alone_moves_weights(bits, dtype, switches):
    start = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    param = nn.Parameter(start.clone())
    grads = [torch.zeros_like(start)] * 100
    optimizer = train(param, grads, lr=1e-3, weight_decay=0.1, master_weight_bits=bits, **switches)
    shrunk = (master_of(optimizer, param).double().abs().sum() / start.double().abs().sum()).item()
    assert shrunk == pytest.approx((1 - 1e-4) ** 100, abs=5e-4)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_a_weight_set_by_other_hands_is_that_weight_to_half_a_place(bits, dtype):
    start = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    param = nn.Parameter(start.clone())
    optimizer = train(param, gradients_for(start.shape, dtype, 20), master_weight_bits=bits)
    with torch.no_grad():
        other = torch.randn(1000, generator=torch.Generator().manual_seed(5)).to(dtype)
        other[:200] = torch.tensor([0.0, -0.0]).repeat(100)  # pruned
        param.copy_(other)
    master = master_of(optimizer, param)
    assert (master - other.float()).abs().max() <= other.float().abs().max() * torch.finfo(dtype).eps / 2
    assert (master[:200].abs() < 2.0**-24).all()
    param.grad = torch.zeros_like(param)
    optimizer.step()
    assert param.isfinite().all()


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(bits, switches):
    start = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    grads = gradients_for(start.shape, torch.bfloat16, 20)
    options = dict(lr=1e-3, master_weight_bits=bits, rounding_seed=11)
    straight = nn.Parameter(start.clone())
    expected = train(straight, grads, **options, **switches)
    param = nn.Parameter(start.clone())
    file = io.BytesIO()
    torch.save(train(param, grads[:10], **options, **switches).state_dict(), file)
    file.seek(0)
    resumed = AdaBelief([param])  # the bits and the seed are the checkpoint's
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.param_groups[0].update(switches)
    for grad in grads[10:]:
        param.grad = grad
        resumed.step()
    assert torch.equal(param, straight)
    assert torch.equal(master_of(resumed, param), master_of(expected, straight))


def test_another_seed_rounds_otherwise():
    start, grads = torch.randn(1000).bfloat16(), gradients_for((1000,), torch.bfloat16, 3)
    params = [nn.Parameter(start.clone()) for _ in range(2)]
    for seed, param in enumerate(params):
        train(param, grads, master_weight_bits=16, rounding_seed=seed)
    assert not torch.equal(*params)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize(("before", "after"), [(32, 24), (24, 32), (32, 16), (16, 32)])
def test_the_bits_may_be_changed_in_a_run(before, after, switches):
    start, grads = torch.randn(1000).bfloat16(), gradients_for((1000,), torch.bfloat16, 8)
    param = nn.Parameter(start.clone())
    optimizer = train(param, grads, master_weight_bits=before, **switches)
    was = master_of(optimizer, param)
    optimizer.param_groups[0] |= {"master_weight_bits": after, "lr": 0.0}
    param.grad = grads[0]
    optimizer.step()
    state = optimizer.state[param]
    assert {name for name in CORRECTIONS if name in state} == {
        name for name, (_, bits_with_it) in CORRECTIONS.items() if after >= bits_with_it
    }
    place = torch.finfo(torch.bfloat16).eps / (256 if 16 not in (before, after) else 1)
    torch.testing.assert_close(master_of(optimizer, param), was, rtol=place, atol=0)


def test_checkpoints_without_a_correction_and_those_of_adabelief_pytorch_go_on():
    start, grads = torch.randn(100).bfloat16(), gradients_for((100,), torch.bfloat16, 10)
    param = nn.Parameter(start.clone())
    optimizer = train(param, grads)
    older = copy.deepcopy(optimizer.state_dict())
    for name in CORRECTIONS:
        del older["state"][0][name]
    del older["param_groups"][0]["master_weight_bits"]
    optimizer.load_state_dict(older)
    assert torch.equal(master_of(optimizer, param), param.float())
    param.grad = grads[0]
    optimizer.step()
    assert optimizer.state[param]["weight_correction"].any()

    theirs = original([param], rectify=False)
    theirs.load_state_dict(optimizer.state_dict())
    theirs.step()
    with pytest.warns(UserWarning, match="adabelief-pytorch"):
        AdaBelief([param]).load_state_dict(original([param], rectify=False).state_dict())


def test_a_module_cast_to_float32_takes_no_correction_along():
    param = nn.Parameter(torch.randn(10).bfloat16())
    saved = train(param, gradients_for((10,), torch.bfloat16, 3)).state_dict()
    wide = nn.Parameter(param.detach().float())
    optimizer = AdaBelief([wide])
    optimizer.load_state_dict(saved)
    assert not optimizer.state[wide].keys() & CORRECTIONS.keys() and "weight_correction" in saved["state"][0]
    wide.grad = torch.ones(10)
    optimizer.step()
    assert wide.isfinite().all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:5], r"weight_correction is of shape \(5,\)"),
        (lambda c: c.float(), "weight_correction is of torch.float32"),
        (lambda c: None, "weight_correction is a NoneType, and no tensor"),
    ],
)
def test_a_damaged_correction_is_refused(damage, message):
    param = nn.Parameter(torch.randn(10).bfloat16())
    optimizer = train(param, gradients_for((10,), torch.bfloat16, 3))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["weight_correction"] = damage(saved["state"][0]["weight_correction"])
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("standing", [dict(lr=0.0, weight_decay=0.1), dict(nonfinite="skip")], ids=str)
def test_a_step_that_moves_nothing_leaves_every_bit(standing, bits, switches):
    param = nn.Parameter(torch.randn(100).bfloat16())
    optimizer = train(param, gradients_for((100,), torch.bfloat16, 3), master_weight_bits=bits, **switches)
    optimizer.param_groups[0].update(standing)
    before, was = param.detach().clone(), master_of(optimizer, param)
    param.grad = torch.full_like(param, float("nan") if "nonfinite" in standing else 1.0)
    optimizer.step()
    assert torch.equal(param, before) and torch.equal(master_of(optimizer, param), was)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_what_has_no_master_weight_is_refused():
    param = nn.Parameter(torch.ones(2, dtype=torch.complex32))
    param.grad = torch.ones_like(param)
    with pytest.raises(ValueError, match=r"torch.complex32.*make it torch.complex64"):
        AdaBelief([param]).step()
    copy_ = torch.ones(2, dtype=torch.bfloat16)
    copy_.grad = torch.ones_like(copy_)
    with pytest.raises(ValueError, match=r"differentiable=True a parameter is in torch.bfloat16.*float32"):
        AdaBelief([copy_], differentiable=True).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(master_weight_bits=8), "Invalid master_weight_bits: 8.*32 bits, 24, or 16"),
        (dict(master_weight_bits="24"), "master_weight_bits=24"),
        (dict(rounding_seed=-1), "Invalid rounding_seed: -1.*from 0 to"),
        (dict(rounding_seed=0.5), "Invalid rounding_seed: 0.5"),
    ],
)
def test_other_bits_and_seeds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdaBelief([nn.Parameter(torch.ones(1))], **options)
