"""Which parameters are decayed, and which have options of their own."""

import logging

import pytest
import torch
from torch import nn

from lightning_adabelief import configure_adabelief
from lightning_adabelief.configure.groups import named_parameters
from tests.configure.nets import Net, fit


def names(optimizer):
    """From a group's name to its parameters' names."""
    return {group.get("name"): group["param_names"] for group in optimizer.param_groups}


def test_biases_and_norms_are_not_decayed():
    optimizer = fit(Net(weight_decay=0.1, lr=2e-3), max_epochs=1)
    decayed, undecayed = optimizer.param_groups
    assert names(optimizer)["decayed"] == ["network.0.weight", "network.3.weight"]
    assert len(undecayed["params"]) == 6
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    assert decayed["lr"] == undecayed["lr"] == 2e-3


def test_without_decay_there_is_one_group_of_named_parameters():
    optimizer = fit(Net(), max_epochs=1)
    assert list(names(optimizer)) == [None]
    assert names(optimizer)[None][0] == "network.0.weight" and len(names(optimizer)[None]) == 8


class OwnNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))


class OwnRMSNorm(OwnNorm):
    pass


UNDECAYED = [
    (nn.BatchNorm2d(4), ["weight", "bias"]),
    (nn.GroupNorm(2, 4), ["weight", "bias"]),
    (nn.RMSNorm(4), ["weight"]),
    (nn.InstanceNorm1d(4, affine=True), ["weight", "bias"]),
    (OwnNorm(), ["gain"]),
    (OwnRMSNorm(), ["gain"]),
    (nn.LSTM(4, 4), ["bias_ih_l0", "bias_hh_l0"]),
    (nn.MultiheadAttention(4, 2), ["in_proj_bias", "out_proj.bias"]),
    (nn.Embedding(4, 4), []),
    (nn.Conv2d(4, 4, 3), ["bias"]),
]


@pytest.mark.parametrize(("module", "undecayed"), UNDECAYED, ids=lambda value: type(value).__name__)
def test_what_is_a_bias_or_a_norm_is_told_by_its_name_and_its_owner(module, undecayed):
    groups = names(configure_adabelief(module, weight_decay=0.1))
    if len(groups) == 2:
        assert sorted(groups["undecayed"]) == sorted(undecayed)
    else:
        (group,) = configure_adabelief(module, weight_decay=0.1).param_groups
        assert group["weight_decay"] == (0.0 if undecayed else 0.1)
        assert sorted(group["param_names"]) == sorted(undecayed or [name for name, _ in module.named_parameters()])


class Tied(nn.Module):
    """A tiny language model whose output weight is its embedding's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 8)
        self.head.weight = self.embedding.weight


def test_embeddings_are_undecayed_on_request_and_tied_weights_come_once():
    assert names(configure_adabelief(Tied(), weight_decay=0.1))["decayed"] == ["embedding.weight", "hidden.weight"]
    groups = names(configure_adabelief(Tied(), weight_decay=0.1, decay_embeddings=False))
    assert groups["decayed"] == ["hidden.weight"]
    assert groups["undecayed"] == ["embedding.weight", "hidden.bias", "head.bias"]


@pytest.mark.parametrize("glob", ["embedding.weight", "head.weight", "head.w*"])
def test_a_tied_weight_is_found_by_any_of_its_names(glob):
    groups = configure_adabelief(Tied(), lr=1e-3, layers={glob: {"lr": 1e-4}}).param_groups
    assert [(group["lr"], group["param_names"]) for group in groups] == [
        (1e-3, ["hidden.weight", "hidden.bias", "head.bias"]),
        (1e-4, ["embedding.weight"]),
    ]


def test_of_two_globs_for_both_names_of_a_tied_weight_the_later_wins():
    layers = {"head.*": {"lr": 1e-4, "eps": 1e-8}, "embedding.*": {"lr": 1e-5}}
    tied = configure_adabelief(Tied(), layers=layers).param_groups[-1]
    assert (tied["param_names"], tied["lr"], tied["eps"]) == (["embedding.weight"], 1e-5, 1e-8)


def test_layers_have_options_of_their_own_split_by_decay_too():
    layers = {"network.0.*": {"lr": 1e-4, "rectify": False}, "network.3.weight": {"weight_decay": 0.5, "warmup": 7}}
    optimizer = configure_adabelief(Net(), lr=1e-3, weight_decay=0.1, layers=layers)
    assert list(names(optimizer)) == [
        "undecayed",
        "network.0/decayed",
        "network.0/undecayed",
        "network.3.weight/decayed",
    ]
    rest, weight, bias, head = optimizer.param_groups
    assert (rest["lr"], rest["rectify"], rest["warmup"]) == (1e-3, True, 0)
    assert (weight["lr"], weight["rectify"], weight["weight_decay"]) == (1e-4, False, 0.1)
    assert (bias["lr"], bias["rectify"], bias["weight_decay"]) == (1e-4, False, 0.0)
    assert (head["lr"], head["weight_decay"], head["warmup"]) == (1e-3, 0.5, 7)


def test_where_globs_overlap_all_apply_and_the_later_wins():
    layers = {"network.*": {"lr": 1e-4, "eps": 1e-8}, "*.bias": {"lr": 1e-2}}
    groups = configure_adabelief(Net(), lr=1e-3, layers=layers).param_groups
    assert {(group["name"], group["lr"], group["eps"]) for group in groups} == {
        ("network", 1e-4, 1e-8),
        ("network-and-bias", 1e-2, 1e-8),
    }


def test_the_undecayed_of_a_layer_stay_undecayed_whatever_decay_it_has():
    groups = configure_adabelief(Net(), weight_decay=0.1, layers={"*": {"weight_decay": 0.3}}).param_groups
    assert {(group["name"], group["weight_decay"]) for group in groups} == {("all/decayed", 0.3), ("all/undecayed", 0)}


def test_a_layer_may_have_no_decay_where_all_others_have():
    groups = configure_adabelief(Net(), weight_decay=0.1, layers={"network.3.*": {"weight_decay": 0.0}}).param_groups
    assert [(group["name"], group["weight_decay"]) for group in groups] == [
        ("decayed", 0.1),
        ("undecayed", 0.0),
        ("network.3", 0.0),
    ]


def test_names_of_groups_are_unique_even_where_globs_look_alike():
    layers = {"network.3???????": {"lr": 1e-4}, "network.3?????": {"lr": 1e-3}}  # .weight, .bias
    labels = [group["name"] for group in configure_adabelief(Net(), layers=layers).param_groups]
    assert labels == ["other", "network.3", "network.3-2"]


ERRORS = [
    ({"layers": {"encoder.*": {"lr": 1e-4}}}, r"layers\['encoder.\*'\] matches no parameter.*There are 'network\.0"),
    ({"layers": {"network.*": {"learning_rate": 1}}}, "'learning_rate', which is no option of AdaBelief"),
    ({"layers": {"network.*": {"lr": -1}}}, "Invalid learning rate: -1"),
    ({"layers": {"network.*": {"params": []}}}, "'params', which is no option"),
    ({"layers": {"network.*": {"warmup": "5%"}}}, r"layers\['network.\*'\]: Invalid warmup: '5%'.*give warmup=0.05"),
    ({"layers": {"network.*": 1e-3}}, r"layers\['network.\*'\] is 0.001, and must name its options.*{'lr': 1e-4}"),
    ({"layers": ["network.*"]}, r"layers is \['network.\*'\]. It goes from globs to options"),
    ({"schedule": "cosin"}, "Unknown schedule: 'cosin'. Did you mean 'cosine'.* Give one of these"),
    (
        {"schedule": 1, "total_steps": 9},
        "Unknown schedule: 1. There are 'cosine', 'linear' and 'step'. Give one of these",
    ),
    ({"schedule": "cosine", "schedule_interval": "batch"}, "schedule_interval: 'batch'. Give one of step, epoch"),
    ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ({"weight_decay": "0.01", "warmup": 0.5}, "Invalid weight_decay: '0.01' is a str.*give weight_decay=0.01"),
    ({"lr": "1e-3", "warmup": 0.5}, "Invalid lr: '1e-3' is a str.*give lr=0.001 .*1.0e-3"),
    ({"warmup": 5.0}, "Invalid warmup: 5.0. As a float.*give an int"),
    ({"warmup": "5%"}, "Invalid warmup: '5%'.*give warmup=0.05"),
    ({"betas": 0.9, "warmup": 0.5}, "Invalid betas: 0.9. betas must be two numbers"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_an_error_names_what_was_given_and_what_is_near(options, message):
    with pytest.raises(ValueError, match=message):
        configure_adabelief(Net(), **options)


def test_an_unknown_option_is_an_error_that_names_the_near_one():
    with pytest.raises(TypeError, match="no option 'warm_up'. Did you mean 'warmup'"):
        configure_adabelief(Net(), warm_up=0.5)
    with pytest.raises(TypeError, match="no option 'beta'. Did you mean 'betas'"):
        configure_adabelief(Net(), beta=0.9, warmup=0.5)


def test_frozen_parameters_are_left_out_and_what_matches_only_them_is_an_error():
    module = Net()
    module.network[0].requires_grad_(False)
    optimizer = configure_adabelief(module, weight_decay=0.1)
    assert names(optimizer)["decayed"] == ["network.3.weight"]
    with pytest.raises(ValueError, match="no parameter that is trained.*gets its options when it is unfrozen"):
        configure_adabelief(module, layers={"network.0.*": {"lr": 1e-4}})
    with pytest.raises(ValueError, match="all 8 parameters are frozen"):
        configure_adabelief(module.requires_grad_(False))
    with pytest.raises(ValueError, match="Flatten has nothing to train: there is no parameter"):
        configure_adabelief(nn.Flatten())


def test_what_torch_compile_and_fsdp_put_into_names_is_left_out():
    module = nn.ModuleDict({"encoder": torch.compile(nn.Linear(4, 4)), "_fsdp_wrapped_module": nn.Linear(4, 4)})
    (group,) = configure_adabelief(module).param_groups
    assert group["param_names"] == ["encoder.weight", "encoder.bias", "weight", "bias"]


def test_the_split_is_logged_in_one_line(caplog):
    module = Net(weight_decay=0.1, warmup=0)
    module.network[3].bias.requires_grad_(False)
    with caplog.at_level(logging.INFO):
        fit(module, max_epochs=1)
    (line,) = [record.message for record in caplog.records if "AdaBelief: decayed" in record.message]
    assert line == (
        "AdaBelief: decayed 2 tensors (20 parameters); undecayed 5 tensors (20 parameters); "
        "frozen, left out 1 tensors (1 parameters)"
    )


def test_names_are_those_of_the_weights_whatever_norm_they_are_parametrized_by():
    network = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    )
    names = [name for name, _ in named_parameters(network)[0]]
    assert sorted(names) == ["0.bias", "0.weight", "1.bias", "1.weight0", "1.weight1"]
