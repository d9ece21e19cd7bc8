"""The code of packed averages: the bytes as they are documented, how numbers are rounded, and what stays exact."""

import math

import numpy as np
import pytest
import torch

from lightning_adabelief.optim.averages import find_state_bits
from lightning_adabelief.optim.low_precision import make_keys, make_seed
from lightning_adabelief.optim.packing import (
    BLOCK,
    MAXIMUM,
    MOMENTUM,
    VARIANCE,
    find_packed_shape,
    pack,
    read_scales,
    unpack,
)

NAMES = [MOMENTUM, VARIANCE, MAXIMUM]
FRACTION_BITS, LARGEST = {MOMENTUM: 5, VARIANCE: 4, MAXIMUM: 4}, {MOMENTUM: 127, VARIANCE: 255, MAXIMUM: 255}
"""Of each average the bits of a code's fraction, and the largest code."""

SHAPES = [(3, 128), (5, 70), (2, 3, 43), (4, 129), (1000,)]
"""Whole blocks, a short one alone and after others, odd rows with padding, and a single row of one dimension."""


def draw(shape, name, seed=0):
    """Numbers over ten orders of magnitude in each block, of both signs for m_t."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-8, 3, shape, generator=generator)
    numbers = torch.randn(shape, generator=generator) * 10.0**exponents
    return numbers if name == MOMENTUM else numbers.square()


def code(values, name, key=0):
    packed = torch.zeros(find_packed_shape(values.shape), dtype=torch.uint8)
    pack(values, packed, name, key)
    return packed


def store(values, name, key=0):
    return unpack(code(values, name, key), values.shape, name)


def expand(codes, name):
    """Return E(q) of codes, as it is documented; of negative ones the opposite."""
    exponents, fractions = np.divmod(np.abs(codes), 2 ** FRACTION_BITS[name])
    return np.sign(codes) * ((1 + fractions / 2 ** FRACTION_BITS[name]) * 2.0**exponents - 1)


def read_bytes(packed, shape, name):
    """Return codes, padding, scales and numbers of a packed average, read with NumPy as the format is documented."""
    rows = packed.numpy()
    count = math.prod(shape[1:] if len(shape) > 1 else shape)
    end = (count + 3) // 4 * 4
    codes = np.ascontiguousarray(rows[:, :count]).view("<i1" if name == MOMENTUM else "<u1").astype(np.float64)
    scales = np.ascontiguousarray(rows[:, end:]).view("<f4").astype(np.float64)
    units = scales.repeat(BLOCK, axis=1)[:, :count] / expand(LARGEST[name], name)
    return codes, rows[:, count:end], scales, (expand(codes, name) * units).reshape(shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_is_its_codes_then_zeros_up_to_4_bytes_then_a_scale_a_block(shape, name):
    values = draw(shape, name)
    packed = code(values, name)
    codes, padding, scales, numbers = read_bytes(packed, shape, name)
    torch.testing.assert_close(unpack(packed, shape, name).double(), torch.from_numpy(numbers), rtol=1e-6, atol=0)
    assert torch.equal(read_scales(packed, shape).double(), torch.from_numpy(scales))
    assert not padding.any()
    rows = values.reshape(len(packed), -1)
    largest = torch.stack([block.abs().amax(1) for block in rows.split(BLOCK, dim=1)], dim=1).double().numpy()
    expected = 2.0 ** np.ceil(np.log2(largest)) if name == MAXIMUM else largest
    np.testing.assert_array_equal(scales, expected)
    assert np.abs(codes).max() == LARGEST[name] or name == MAXIMUM


@pytest.mark.parametrize("shape", [(64, 64), (40, 3, 43), (4096,), (1, 5000)])
def test_a_packed_tensor_has_the_bytes_of_its_codes_and_a_fortieth_more_in_large_rows(shape):
    rows, row_bytes = find_packed_shape(shape)
    elements = math.prod(shape)
    assert rows * row_bytes <= elements + rows * 3 + 4 * rows * math.ceil(elements / rows / BLOCK)


@pytest.mark.parametrize(
    ("shape", "dtype", "packed"),
    [
        ((64, 64), torch.float32, True),
        ((64, 64), torch.bfloat16, True),
        ((64, 64), torch.float16, True),
        ((64, 64), torch.float64, False),
        ((64, 64), torch.complex64, False),
        ((63, 65), torch.float32, False),  # 4095 elements
        ((65, 63), torch.float32, False),  # rows of 63
        ((1024, 4, 3, 3), torch.float32, False),  # rows of 36
        ((4096,), torch.float32, True),
        ((4095,), torch.float32, False),
        ((), torch.float32, False),
        ((0, 64), torch.float32, False),
    ],
)
def test_averages_of_large_tensors_in_long_rows_are_packed(shape, dtype, packed):
    assert find_state_bits(torch.empty(shape, dtype=dtype), 8) == (8 if packed else 32)


def test_m_is_coded_to_the_nearest():
    values = draw((200, 128), MOMENTUM)
    codes, _, scales, numbers = read_bytes(code(values, MOMENTUM), values.shape, MOMENTUM)
    exact = values.double().numpy()
    error = np.abs(numbers - exact)
    for neighbour in (codes - 1, codes + 1):
        other = scales * expand(np.clip(neighbour, -127, 127), MOMENTUM) / expand(127, MOMENTUM)
        assert (np.abs(other - exact) >= error - 1e-6 * scales).all()  # a middle may be rounded either way


@pytest.mark.parametrize("exponent", [-5.5, -4, -3, -1, -0.01])
def test_s_is_one_of_two_neighbours_and_right_on_average(exponent):
    values = torch.full((1000, 128), 3.7 * 10.0**exponent)
    values[:, 5] = 3.7  # the largest of each block, which is exact
    keys = make_keys([make_seed(0, position) for position in range(2)], [7, 8])
    found = torch.stack([store(values, VARIANCE, key) for key in keys]).double()
    assert (found[..., 5] == values[0, 5]).all()
    found = found[..., torch.arange(128) != 5]
    below, above = found.min(), found.max()
    assert below <= values[0, 0] <= above
    levels = 3.7 * expand(np.arange(256), VARIANCE) / expand(255, VARIANCE)
    place = np.abs(levels - below.item()).argmin()
    assert [below.item(), above.item()] == pytest.approx(levels[place : place + 2])
    share = (values[0, 0].double() - below) / (above - below)
    error = (above - below) * (share * (1 - share) / found.numel()) ** 0.5
    assert abs(found.mean() - values[0, 0].double()) < 5 * error + 4e-7 * values[0, 0]


def test_other_steps_and_parameters_draw_otherwise_and_the_same_again():
    values = draw((8, 128), VARIANCE)
    keys = {(position, step): make_keys([make_seed(3, position)], [step])[0] for position in (0, 1) for step in (1, 2)}
    coded = [code(values, VARIANCE, key).numpy().tobytes() for key in keys.values()]
    assert len(set(coded)) == 4
    assert coded == [code(values, VARIANCE, key).numpy().tobytes() for key in keys.values()]
    as_tensor = torch.tensor(keys[0, 1])
    assert code(values, VARIANCE, as_tensor).numpy().tobytes() == coded[0]


def test_large_tensors_are_coded_in_pieces_as_in_one(monkeypatch):
    values = draw((50, 130), VARIANCE)
    whole = code(values, VARIANCE, key=9)
    monkeypatch.setattr("lightning_adabelief.optim.packing.CODED_AT_ONCE", 400)
    assert torch.equal(code(values, VARIANCE, key=9), whole)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_are_exact_and_bytes_of_zero_are_zeros(name):
    values = draw((6, 200), name)
    values[0] = 0
    values[1, 50:] = 0
    values[2, ::3] = -0.0
    found = store(values, name)
    assert torch.equal(found[values == 0], torch.zeros(int((values == 0).sum())))
    assert not code(torch.zeros(6, 200), name).any()
    assert not unpack(torch.zeros(find_packed_shape((6, 200)), dtype=torch.uint8), (6, 200), name).any()


@pytest.mark.parametrize("name", [VARIANCE, MAXIMUM])
def test_an_s_above_0_never_becomes_0(name):
    values = 10.0 ** torch.linspace(-45, 0, 128).repeat(20, 1)
    for scale in (1.0, 1e38):
        scaled = values.clone()
        scaled[:, -1] = scale
        for key in range(3):
            found = store(scaled, name, key)
            smallest = read_scales(code(scaled, name), scaled.shape) * (expand(1, name) / expand(255, name))
            assert ((found >= smallest * (1 - 1e-6)) | (scaled == 0)).all()


def test_what_was_read_is_stored_again_without_change():
    for name in (MOMENTUM, MAXIMUM):
        values = store(draw((200, 128), name), name)
        # A maximum just above half a power of two may be rounded to below it, and has another scale from then on.
        values = store(values, name)
        assert torch.equal(store(values, name), values)
    values = draw((200, 128), VARIANCE)
    torch.testing.assert_close(store(values, VARIANCE, 1).amax(1), values.amax(1), rtol=2e-7, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_block_with_a_number_that_is_not_finite_reads_as_nan_and_its_neighbours_do_not(name, bad):
    values = draw((4, 300), name)
    expected = store(values, name)
    values[2, 130] = bad if name == MOMENTUM else abs(bad)
    found = store(values, name)
    assert found[2, 128:256].isnan().all()
    found[2, 128:256] = expected[2, 128:256]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("scale", [1e-31, 1e-20, 1e30, 1e38])
def test_numbers_of_any_size_are_kept_as_closely(scale):
    for name in NAMES:
        values = draw((10, 128), name)
        values = values / values.abs().max() * scale
        error = (store(values, name).double() - values.double()).abs().sum() / values.abs().double().sum()
        assert error < 0.04


def test_strides_do_not_matter():
    values = draw((64, 3, 5, 5), MOMENTUM)
    strided = values.to(memory_format=torch.channels_last)
    assert torch.equal(code(strided, MOMENTUM), code(values, MOMENTUM))


def test_a_skipped_pack_changes_nothing():
    packed = code(draw((64, 70), MOMENTUM), MOMENTUM)
    before = packed.clone()
    pack(torch.full((64, 70), math.nan), packed, MOMENTUM, skip=torch.tensor(True))
    assert torch.equal(packed, before)
    pack(torch.zeros(64, 70), packed, MOMENTUM, skip=torch.tensor(False))
    assert not packed.any()
