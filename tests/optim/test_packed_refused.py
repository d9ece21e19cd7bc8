"""Averages in 16 and 8 bits where they can't be had: refused by name, before anything moves."""

import copy

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief
from tests.optim.test_packed_step import BITS, go_on, make_params, set_grads, train


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128], ids=str)
def test_parameters_whose_averages_cannot_have_fewer_bits_are_refused_before_anything_moves(dtype, bits):
    params = [*make_params(), nn.Parameter(torch.ones(3, dtype=dtype))]
    start = copy.deepcopy(params)
    set_grads(params, 0)
    optimizer = AdaBelief(params, state_bits=bits)
    with pytest.raises(ValueError, match=rf"in {dtype}, .* no state of {bits} bits: .* group with state_bits=32"):
        optimizer.step()
    assert all(map(torch.equal, params, start)) and not optimizer.state
    groups = [{"params": params[:-1]}, {"params": params[-1:], "state_bits": 32}]
    optimizer = AdaBelief(groups, state_bits=bits)
    go_on(optimizer, params, 1)
    optimizer.param_groups[1]["state_bits"] = bits
    with pytest.raises(ValueError, match=f"in {dtype}, "):
        optimizer.step()


@pytest.mark.parametrize("bits", BITS)
def test_a_state_that_was_loaded_for_a_parameter_in_float64_is_refused_too(bits):
    saved = train(make_params(torch.float64), 1).state_dict()
    params = make_params(torch.float64)
    optimizer = AdaBelief(params, state_bits=bits)
    optimizer.load_state_dict(saved)
    set_grads(params, 1)
    with pytest.raises(ValueError, match=r"in torch.float64, .* group with state_bits=32"):
        optimizer.step()


def test_other_bits_are_refused_also_where_they_are_set_in_a_run():
    params = make_params()
    with pytest.raises(ValueError, match="Invalid state_bits: 12"):
        AdaBelief(params, state_bits=12)
    optimizer = train(params, 1, state_bits=8)
    optimizer.param_groups[0]["state_bits"] = 12
    set_grads(params, 1)
    with pytest.raises(ValueError, match="Invalid state_bits: 12.* in 16, .* in 8, .*: give one of these"):
        optimizer.step()


def test_differentiable_is_refused():
    with pytest.raises(ValueError, match="state_bits=8 and differentiable=True do not go together"):
        AdaBelief(make_params(), state_bits=8, differentiable=True)


@pytest.mark.parametrize("bits", BITS)
def test_data_of_another_shape_is_an_error_that_names_both(bits):
    param = nn.Parameter(torch.randn(64, 128))
    optimizer = train([param], 1, state_bits=bits)
    param.data = torch.randn(128, 64)
    param.grad = None
    set_grads([param], 1)
    shape = r"packed in bytes of shape \(64, 132\)" if bits == 8 else r"of shape \(64, 128\)"
    with pytest.raises(ValueError, match=rf"\(128, 64\) has a state whose exp_avg is {shape}"):
        optimizer.step()
