"""Averages in bfloat16: rounded stochastically to one of two neighbours, right on average; what must stay exact."""

import math

import pytest
import torch

from lightning_adabelief.optim.averages import make_average, read_average, write_average
from lightning_adabelief.optim.low_precision import make_keys, make_seed
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE

NAMES = [MOMENTUM, VARIANCE, MAXIMUM]
SHAPE = (64, 256)


def store(values, name, key=0):
    stored = make_average(values, 16, torch.float32)
    write_average(values, stored, name, key)
    assert stored.dtype == torch.bfloat16
    return read_average(stored, values.shape, name)


def draw(name):
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return values if name == MOMENTUM else values.square()


@pytest.mark.parametrize("name", [MOMENTUM, VARIANCE])
def test_a_number_becomes_one_of_its_neighbours_and_is_right_on_average(name):
    values = draw(name)
    keys = make_keys([make_seed(0, 0)] * 400, list(range(400)))
    found = torch.stack([store(values, name, key) for key in keys])
    bits = values.view(torch.int32)
    towards_zero, away = ((bits & ~0xFFFF) + offset for offset in (0, 0x10000))
    towards_zero, away = towards_zero.view(torch.float32), away.view(torch.float32)
    assert ((found == towards_zero) | (found == away)).all()
    share = (values - towards_zero) / (away - towards_zero)
    error = (found.mean(0) - values) / (away - towards_zero).abs()
    assert (error.abs() <= 5 * (share * (1 - share) / len(keys)).sqrt() + 1e-3).all()
    assert abs(error.mean().item()) < 5 * (share * (1 - share)).mean().sqrt() / (error.numel() * len(keys)) ** 0.5


def test_the_draws_of_m_and_s_are_not_the_same():
    values = draw(VARIANCE)
    m, s = (store(values, name, 7) > values for name in (MOMENTUM, VARIANCE))
    # Of independent draws, a number a share u above its neighbour goes the same way with u^2 + (1 - u)^2: 2/3 on average.
    assert (m == s).float().mean().item() == pytest.approx(2 / 3, abs=0.02)


def test_a_maximum_is_rounded_to_the_nearest():
    values = draw(MAXIMUM)
    assert torch.equal(store(values, MAXIMUM, 7), values.bfloat16().float())


@pytest.mark.parametrize("name", NAMES)
def test_zeros_and_what_was_read_are_stored_without_change(name):
    values = draw(name)
    values[::3] = 0.0
    values = store(values, name, 1)
    assert torch.equal(store(values, name, 2), values)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, 0x7FC00000], ids=hex)
@pytest.mark.parametrize("name", NAMES)
def test_infinity_and_nan_stay_what_they_are(name, bits):
    values = draw(name)
    values.view(torch.int32)[0, :4] = bits
    values[1, :4] = math.inf
    found = store(values, name, 3)
    assert found[0, :4].isnan().all() and (found[1, :4] == math.inf).all()
    assert found[0, 4:].isfinite().all() and found[2:].isfinite().all()
    if name == MOMENTUM:
        assert (store(-values, name, 3)[1, :4] == -math.inf).all()


@pytest.mark.parametrize("bits", [16, 8])
def test_a_skipped_write_changes_nothing(bits):
    stored = make_average(torch.empty(SHAPE), bits, torch.float32)
    write_average(draw(VARIANCE), stored, VARIANCE)
    before = stored.clone()
    write_average(torch.full(SHAPE, math.nan), stored, VARIANCE, 5, skip=torch.tensor(True))
    assert torch.equal(stored, before)
    write_average(torch.zeros(SHAPE), stored, VARIANCE, 5, skip=torch.tensor(False))
    assert not read_average(stored, torch.Size(SHAPE), VARIANCE).any()
