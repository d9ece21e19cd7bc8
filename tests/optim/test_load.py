"""Loading: each parameter finds its own state, what does not fit is refused whole, and how a step is taken stays."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in "abc"})


def train(params, optimizer, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param.dtype)
        optimizer.step()


def trained(groups=lambda named: [{"params": named}], **options):
    model = network()
    optimizer = AdaBelief(groups(list(model.named_parameters())), **options)
    train(model.parameters(), optimizer)
    return model, optimizer


def snapshot(optimizer):
    """All that a load may change, by identity and by value."""
    values = copy.deepcopy(optimizer.state_dict())
    return [id(group) for group in optimizer.param_groups], repr(optimizer), repr(values)


def assert_found(model, optimizer, loaded):
    for param in model.parameters():
        for key, value in optimizer.state[param].items():
            assert torch.equal(loaded.state[param][key], value)


def reversed_order(named):
    return [{"params": named[::-1]}]


def two_groups(named):
    return [{"params": named[:1], "lr": 0.1}, {"params": named[1:], "lr": 0.2}]


def two_groups_the_other_way_round(named):
    return [{"params": named[:0:-1], "lr": 0.3}, {"params": named[:1], "lr": 0.4}]


@pytest.mark.parametrize(
    ("before", "after"),
    [(lambda named: [{"params": named}], reversed_order), (two_groups, two_groups_the_other_way_round)],
)
def test_parameters_and_groups_in_another_order_find_their_own_by_name(before, after):
    model, optimizer = trained(before)
    loaded = AdaBelief(after(list(model.named_parameters())))
    own_names = [group["param_names"] for group in loaded.param_groups]
    loaded.load_state_dict(optimizer.state_dict())
    assert_found(model, optimizer, loaded)
    assert [group["param_names"] for group in loaded.param_groups] == own_names
    lr_of = {param: group["lr"] for group in optimizer.param_groups for param in group["params"]}
    for group in loaded.param_groups:
        assert all(group["lr"] == lr_of[param] for param in group["params"])


def test_names_are_compared_without_what_wrappers_add():
    model, optimizer = trained()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["param_names"] = [f"_orig_mod.{name}.weight" for name in "cab"]
    saved["param_groups"][0]["params"] = [2, 0, 1]
    loaded = AdaBelief(model.named_parameters())
    loaded.load_state_dict(saved)
    assert_found(model, optimizer, loaded)


def test_without_names_on_both_sides_or_with_all_of_them_renamed_the_order_decides():
    model, optimizer = trained()
    renamed = {f"network.{name}": param for name, param in model.named_parameters()}
    for params in (model.parameters(), renamed.items()):
        loaded = AdaBelief(params)
        loaded.load_state_dict(optimizer.state_dict())
        assert_found(model, optimizer, loaded)
    assert loaded.param_groups[0]["param_names"] == list(renamed)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_distributed_checkpoint_orders_by_name_itself_and_is_not_undone():
    model, optimizer = trained()
    loaded = AdaBelief(list(model.named_parameters())[::-1])
    set_optimizer_state_dict(model, loaded, get_optimizer_state_dict(model, optimizer))
    assert_found(model, optimizer, loaded)


def test_a_layer_of_another_name_is_an_error_that_names_both():
    model, optimizer = trained()
    named = list(model.named_parameters())[:2] + [("head.weight", model["c"].weight)]
    loaded = AdaBelief(named)
    before = snapshot(loaded)
    with pytest.raises(ValueError, match="does not have: c.weight; and none of head.weight.*remove 'param_names'"):
        loaded.load_state_dict(optimizer.state_dict())
    assert snapshot(loaded) == before


def test_groups_of_other_parameters_are_an_error():
    model, optimizer = trained(two_groups)
    a, b, c = model.named_parameters()
    with pytest.raises(ValueError, match="param groups are not this optimizer's"):
        AdaBelief([{"params": [b]}, {"params": [a, c]}]).load_state_dict(optimizer.state_dict())


def alter(**changes):
    """What changes the state of the second parameter."""

    def change(saved):
        saved["state"][1] |= changes

    return change


def drop(key):
    return lambda saved: saved["state"][1].pop(key)


STEPS = [math.nan, math.inf, -1, 2.5, True, "3", None, torch.tensor(math.nan), torch.ones(2), torch.tensor(1j)]
DAMAGES = {
    "no exp_avg": (drop("exp_avg"), "it has no exp_avg, only exp_avg_var, step"),
    "no step": (drop("step"), "it has no step"),
    "no dict": (lambda saved: saved["state"].update({1: 3}), "it is 3, and no dict"),
    "another shape": (alter(exp_avg=torch.ones(2, 3)), r"its exp_avg is of shape \(2, 3\)"),
    "a shape that broadcasts": (alter(exp_avg_var=torch.ones(3)), r"its exp_avg_var is of shape \(3,\)"),
    "complex": (alter(exp_avg=torch.ones(3, 3, dtype=torch.complex64)), "its exp_avg is of torch.complex64"),
    "integers": (alter(exp_avg_var=torch.ones(3, 3, dtype=torch.long)), "its exp_avg_var is of torch.int64"),
    "bools": (alter(exp_avg=torch.ones(3, 3, dtype=torch.bool)), "its exp_avg is of torch.bool"),
    "a list": (alter(exp_avg=[1.0]), "its exp_avg is a list, and no tensor"),
    "negative s": (alter(exp_avg_var=-torch.ones(3, 3)), "its exp_avg_var, an average of squares, is negative"),
    "negative largest s": (alter(max_exp_avg_var=-torch.ones(3, 3)), "its max_exp_avg_var, an average of squares"),
    **{f"step {step}": (alter(step=step), "its step is .*, and must be a whole number") for step in STEPS},
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_refused_by_the_parameters_name_and_changes_nothing(damage, message, named):
    model, optimizer = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    damage(saved)
    twin = network()
    loaded = AdaBelief(twin.named_parameters() if named else twin.parameters(), lr=0.5)
    train(twin.parameters(), loaded, steps=1)
    before, states = snapshot(loaded), {param: dict(state) for param, state in loaded.state.items()}
    parameter = "b.weight" if named else "1 of param group 0"
    with pytest.raises(ValueError, match=rf"state of parameter {parameter}, of shape \(3, 3\).*: {message}.*damaged"):
        loaded.load_state_dict(saved)
    assert snapshot(loaded) == before
    assert all(loaded.state[param][key] is value for param, state in states.items() for key, value in state.items())
    train(twin.parameters(), loaded, steps=1)


def test_a_real_state_for_a_complex_parameter_is_refused():
    param = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = AdaBelief([param])
    train([param], optimizer)
    saved = optimizer.state_dict()
    saved["state"][0]["exp_avg_var"] = torch.ones(3)
    with pytest.raises(ValueError, match="its exp_avg_var is of torch.float32"):
        AdaBelief([param]).load_state_dict(saved)
    saved["state"][0]["exp_avg_var"] = torch.tensor([1 - 1j, 1, 1])
    with pytest.raises(ValueError, match="negative in places"):
        AdaBelief([param]).load_state_dict(saved)


def test_an_adams_damaged_state_is_refused_too():
    model = network()
    adam = torch.optim.Adam(model.parameters())
    train(model.parameters(), adam)
    for changes, message in (
        (dict(exp_avg_sq=-torch.ones(3, 3)), "its exp_avg_sq, an average of squares, is negative"),
        (dict(exp_avg=torch.ones(9)), r"its exp_avg is of shape \(9,\)"),
        (dict(step=math.nan), "its step is nan"),
    ):
        saved = copy.deepcopy(adam.state_dict())
        saved["state"][1] |= changes
        with pytest.raises(ValueError, match=f"1 of param group 0.*{message}"):
            AdaBelief(model.parameters()).load_state_dict(saved)


def test_what_diverged_can_be_loaded_as_it_was():
    model, optimizer = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][1]["exp_avg"].fill_(math.nan)
    saved["state"][1]["exp_avg_var"].fill_(math.inf)
    loaded = AdaBelief(model.parameters())
    loaded.load_state_dict(saved)
    assert loaded.state[model["b"].weight]["exp_avg"].isnan().all()


NO_STATE_DICTS = [
    "text",
    None,
    [],
    {},
    {"state": {}},
    {"state": {}, "param_groups": {}},
    {"state": [], "param_groups": [{"params": [0, 1, 2]}]},
    {"state": {}, "param_groups": [{"lr": 1.0}]},
    {"state": {}, "param_groups": ["params"]},
    {"epoch": 1, "optimizer_states": []},
]


@pytest.mark.parametrize("value", NO_STATE_DICTS, ids=str)
def test_what_is_no_state_dict_is_a_value_error_that_changes_nothing(value):
    _, optimizer = trained()
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="Cannot load .* into AdaBelief"):
        optimizer.load_state_dict(value)
    assert snapshot(optimizer) == before


def test_an_error_of_a_users_hook_changes_nothing_either():
    model, optimizer = trained()
    loaded = AdaBelief(model.parameters(), lr=0.5)
    before = snapshot(loaded)

    def fail(_):
        raise KeyError("the user's")

    loaded.register_load_state_dict_post_hook(fail)
    with pytest.raises(KeyError, match="the user's"):
        loaded.load_state_dict(optimizer.state_dict())
    assert snapshot(loaded) == before and not loaded.state


@pytest.mark.parametrize("option", ["foreach", "fused", "capturable", "differentiable"])
@pytest.mark.parametrize("value", [True, False])
def test_how_a_step_is_taken_is_the_constructors_and_not_the_checkpoints(option, value):
    model, optimizer = trained()
    saved = optimizer.state_dict()
    for name in ("foreach", "fused", "capturable", "differentiable"):
        saved["param_groups"][0][name] = name == option
    switches = {option: value}
    loaded = AdaBelief(model.parameters(), **switches)
    loaded.load_state_dict(saved)
    own = AdaBelief(model.parameters(), **switches)
    for name in ("foreach", "fused", "capturable", "differentiable"):
        assert loaded.param_groups[0][name] is own.param_groups[0][name]
    if value and option in ("capturable", "differentiable"):
        return
    train(model.parameters(), loaded, steps=1)  # on a CPU: a capturable checkpoint would be an AssertionError


def test_a_group_keeps_its_own_implementation_where_groups_differ():
    model, optimizer = trained(two_groups, foreach=True)
    groups = two_groups(list(model.named_parameters()))
    groups[1]["fused"] = True
    loaded = AdaBelief(groups)
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.implementations == ["forloop", "fused"]
    train(model.parameters(), loaded, steps=1)


def test_a_pickle_has_its_step_where_its_parameters_are(monkeypatch):
    monkeypatch.setattr(state_module, "_get_capturable_supported_devices", lambda: ["cpu"])
    param = nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param], capturable=True)
    train([param], optimizer)
    (state,) = optimizer.state.values()
    state["step"] = state["step"].double()  # as a state of a version or a device that had it so
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert next(iter(twin.state.values()))["step"].dtype == torch.float32
        train(twin.param_groups[0]["params"], twin, steps=1)
        assert next(iter(twin.state.values()))["step"] == 4
    assert state["step"] == 3
