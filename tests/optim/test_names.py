"""Names of parameters: plain ones, and all that a tied weight has."""

import doctest

import torch
from torch import nn

from lightning_adabelief.optim import names
from lightning_adabelief.optim.names import parameter_names, plain_name


def test_the_examples_in_the_docstrings_run():
    results = doctest.testmod(names)
    assert results.attempted == 5 and results.failed == 0


def test_a_tied_weight_has_all_its_names_and_the_modules_comes_first():
    network = nn.ModuleDict({"head": nn.Linear(4, 8), "embedding": nn.Embedding(8, 4), "hidden": nn.Linear(4, 4)})
    network["embedding"].weight = network["head"].weight
    found = parameter_names(network)
    assert list(found.values()) == [
        ("head.weight", "embedding.weight"),
        ("head.bias",),
        ("hidden.weight",),
        ("hidden.bias",),
    ]
    assert [(plain_names[0], param) for param, plain_names in found.items()] == list(network.named_parameters())


def test_a_block_that_is_used_twice_has_the_names_of_both_places():
    block = nn.Linear(2, 2)
    assert list(parameter_names(nn.Sequential(block, nn.ReLU(), block)).values()) == [
        ("0.weight", "2.weight"),
        ("0.bias", "2.bias"),
    ]


def test_what_wrappers_and_parametrizations_put_into_names_is_left_out_of_all_of_them():
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2, bias=False))
    network = nn.ModuleDict({"compiled": torch.compile(normed), "plain": normed})
    assert list(parameter_names(network).values()) == [("compiled.weight", "plain.weight")]


def test_two_wrappers_of_one_module_do_not_repeat_a_name():
    inner = nn.Linear(2, 2, bias=False)
    network = nn.ModuleDict({"_orig_mod": inner, "_fsdp_wrapped_module": inner})
    assert list(parameter_names(network).values()) == [("weight",)]
    assert plain_name("_fsdp_wrapped_module._orig_mod.weight") == "weight"
