"""State dicts of averages in 16 and 8 bits: small, plain, converted, refused when damaged."""

import copy
import io
import math
import pickle

import pytest
import pytorch_optimizer
import timm.optim
import torch
from torch import nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.averages import unpack_average
from tests.optim.reference import original
from tests.optim.test_packed_step import BITS, DTYPES, assert_same, go_on, make_params, read, train

ERRORS = {16: 0.005, 8: 0.03}
"""The relative error of numbers that are coded once, by their bits."""

OPTIONS = dict(lr=1e-2, amsgrad=True, weight_decay=0.1, rounding_seed=5)


def copy_params(params):
    return [nn.Parameter(param.detach().clone()) for param in params]


def save(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    return file


def read_file(file):
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("switches", [dict(foreach=False), dict(foreach=True), dict(fused=True)], ids=str)
def test_a_run_that_is_resumed_from_a_file_is_the_uninterrupted_one_to_the_bit(bits, switches):
    straight, half = make_params(), make_params()
    expected = train(straight, 8, state_bits=bits, **OPTIONS, **switches)
    file = save(train(half, 4, state_bits=bits, **OPTIONS, **switches))
    resumed = AdaBelief(half, state_bits=bits, **switches)
    resumed.load_state_dict(read_file(file))
    go_on(resumed, half, 4, first=4)
    assert_same(resumed, expected)


@pytest.mark.parametrize("bits", BITS)
def test_a_file_is_as_small_as_the_bits_say(bits):
    param = nn.Parameter(torch.zeros(256, 1024))
    sizes = {n: save(train([param], 1, state_bits=n)).getbuffer().nbytes for n in (32, bits)}
    assert sizes[bits] < (bits / 32 + 0.02) * sizes[32]
    twice = save(train([param], 1, state_bits=bits, amsgrad=True)).getbuffer().nbytes
    assert twice == pytest.approx(1.5 * sizes[bits], rel=0.02)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("bits", BITS)
def test_copies_go_on_identically(bits, copied):
    params = make_params()
    optimizer = train(params, 3, state_bits=bits, **OPTIONS)
    twin = copied(optimizer)
    go_on(optimizer, params, 2, first=3)
    go_on(twin, twin.param_groups[0]["params"], 2, first=3)
    assert_same(twin, optimizer)


def test_a_pickle_of_an_older_version_keeps_32_bits():
    params = make_params()
    state = copy.deepcopy(train(params, 1).__getstate__())
    for options in (state["defaults"], *state["param_groups"]):
        del options["state_bits"]
    loaded = AdaBelief.__new__(AdaBelief)
    loaded.__setstate__(state)
    assert loaded.param_groups[0]["state_bits"] == 32
    go_on(loaded, loaded.param_groups[0]["params"], 1, first=1)


@pytest.mark.parametrize("before", [32, 16, 8])
@pytest.mark.parametrize("after", [32, 16, 8])
def test_a_state_loads_into_other_bits_which_stay_the_optimizers_own(before, after):
    params = make_params()
    optimizer = train(params, 4, state_bits=before, **OPTIONS)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    loaded = AdaBelief(copy_params(params), state_bits=after)
    loaded.load_state_dict(saved)
    assert loaded.param_groups[0]["state_bits"] == after
    for ours, theirs in zip(loaded.param_groups[0]["params"], params, strict=True):
        for name, average in read(optimizer, theirs).items():
            assert loaded.state[ours][name].dtype == DTYPES[after if ours.numel() >= 4096 else 32]
            error = (read(loaded, ours)[name] - average).abs().sum() / average.abs().sum()
            assert error <= (0.0 if before == after or after == 32 else ERRORS[after])
    for id_, values in kept["state"].items():  # what was given is left as it was
        assert all(torch.equal(value, saved["state"][id_][key]) for key, value in values.items())
    go_on(loaded, loaded.param_groups[0]["params"], 1, first=4)


@pytest.mark.parametrize("bits", BITS)
def test_parameters_find_their_state_by_name(bits):
    def make(order):
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.Linear(64, 70), "b": nn.Linear(64, 70), "c": nn.Linear(64, 70)})
        named = dict(model.named_parameters())
        return AdaBelief([(name, named[name]) for name in order], state_bits=bits)

    names = ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "c.bias"]
    optimizer, other = make(names), make(names[::-1])
    go_on(optimizer, optimizer.param_groups[0]["params"], 3)
    other.load_state_dict(optimizer.state_dict())
    for ours, theirs in zip(other.param_groups[0]["params"], optimizer.param_groups[0]["params"][::-1], strict=True):
        assert torch.equal(other.state[ours]["exp_avg_var"], optimizer.state[theirs]["exp_avg_var"])


@pytest.mark.parametrize("bits", BITS)
def test_a_module_that_was_cast_takes_its_state_along_where_it_loads(bits):
    params = make_params()
    optimizer = train(params, 3, state_bits=bits)
    saved = optimizer.state_dict()
    for dtype, kept in ((torch.bfloat16, DTYPES[bits]), (torch.float64, torch.float64)):
        cast = [nn.Parameter(param.detach().to(dtype)) for param in params]
        loaded = AdaBelief(cast, state_bits=bits if dtype == torch.bfloat16 else 32)
        loaded.load_state_dict(saved)
        value = loaded.state[cast[0]]["exp_avg_var"]
        assert value.dtype == kept
        found = unpack_average(value, cast[0], "exp_avg_var").float()
        assert torch.equal(found, read(optimizer, params[0])["exp_avg_var"])
        go_on(loaded, cast, 1, first=3)


@pytest.mark.parametrize("bits", BITS)
def test_adabelief_pytorch_takes_the_state_by_way_of_32_bits(bits):
    params = make_params()
    optimizer = train(params, 4, state_bits=bits, lr=1e-2, rectify=False, eps=1e-8)
    bridge = AdaBelief(params)
    bridge.load_state_dict(optimizer.state_dict())
    copies = copy_params(params), copy_params(params)
    for other, optimizer in zip(copies, (AdaBelief(copies[0]), original(copies[1], rectify=False)), strict=True):
        optimizer.load_state_dict(copy.deepcopy(bridge.state_dict()))
        go_on(optimizer, other, 3, first=4)
    torch.testing.assert_close(*copies)


def its_timm(params):
    return timm.optim.AdaBelief(params, lr=1e-2, rectify=False)


def its_pytorch_optimizer(params):
    return pytorch_optimizer.AdaBelief(params, lr=1e-2, rectify=False)


def its_adam(params):
    return torch.optim.Adam(params, lr=1e-2, amsgrad=True)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("make", [original, its_timm, its_pytorch_optimizer, its_adam], ids=lambda make: make.__name__)
def test_checkpoints_of_other_optimizers_are_kept_in_fewer_bits(make, bits):
    params = make_params()
    other = make(params)
    go_on(other, params, 4)
    loaded = []
    for state_bits in (bits, 32):
        optimizer = AdaBelief(copy_params(params), state_bits=state_bits)
        with pytest.warns(UserWarning, match="into AdaBelief"):
            optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
        loaded.append(optimizer)
    packed, plain = loaded
    for ours, theirs in zip(*(each.param_groups[0]["params"] for each in loaded), strict=True):
        for name, average in read(plain, theirs).items():
            error = (read(packed, ours)[name] - average).abs().sum() / average.abs().sum()
            assert error < ERRORS[bits]
    assert packed.state[packed.param_groups[0]["params"][0]]["exp_avg"].dtype == DTYPES[bits]


def damage_scale(scale):
    def damage(value):
        value[0, -4:] = torch.tensor([scale]).view(torch.uint8)
        return value

    return damage


DAMAGES = {
    "fewer rows": (lambda value: value[:-1], r"its exp_avg_var is packed in bytes of shape \(31, "),
    "fewer bytes": (lambda value: value[:, :-4], r"its exp_avg_var is packed in bytes of shape \(32, "),
    "one dimension": (lambda value: value.flatten(), r"its exp_avg_var is packed in bytes of shape \(\d+,\)"),
    "other integers": (lambda value: value.to(torch.int8), r"its exp_avg_var is of shape \(32, "),
    "a negative scale": (damage_scale(-1.0), "its exp_avg_var, which is packed, has a negative scale"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_packed_state_is_refused_by_name_and_changes_nothing(damage, message):
    params = make_params()
    optimizer = train(params, 3, state_bits=8)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["exp_avg_var"] = damage(saved["state"][0]["exp_avg_var"])
    before = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=rf"parameter 0 of param group 0, of shape \(32, 128\).*: {message}"):
        optimizer.load_state_dict(saved)
    assert_same(optimizer, before)


def test_a_packed_state_of_a_parameter_too_small_or_complex_is_refused():
    saved = train([nn.Parameter(torch.ones(64, 64))], 1, state_bits=8).state_dict()
    for param in (torch.ones(64, 64, dtype=torch.complex64), torch.ones(64, 4)):
        with pytest.raises(ValueError, match="its exp_avg is packed in bytes"):
            AdaBelief([nn.Parameter(param)]).load_state_dict(saved)


@pytest.mark.parametrize("bits", BITS)
def test_what_diverged_can_be_loaded_as_it_was(bits):
    params = make_params()
    optimizer = train(params, 2, state_bits=bits)
    params[0].grad[0, 0] = math.nan
    optimizer.step()
    loaded = AdaBelief(copy_params(params), state_bits=bits)
    loaded.load_state_dict(optimizer.state_dict())
    broken = read(loaded, loaded.param_groups[0]["params"][0])["exp_avg"][0].isnan()
    assert broken.sum() == (128 if bits == 8 else 1)


@pytest.mark.parametrize("bits", BITS)
def test_on_the_meta_device_the_state_has_the_shape_it_will_have(bits):
    saved = train(make_params(), 1, state_bits=32).state_dict()
    params = [nn.Parameter(param.detach().to("meta")) for param in make_params()]
    optimizer = AdaBelief(params, state_bits=bits)
    optimizer.load_state_dict(saved)
    value = optimizer.state[params[0]]["exp_avg"]
    assert value.is_meta and value.dtype == DTYPES[bits]
