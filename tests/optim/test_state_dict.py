"""State dicts, pickles and their hooks, as PyTorch's own optimizer tests ask of them."""

import copy
import io
import itertools
import pickle

import pytest
import torch

from lightning_adabelief import AdaBelief
from tests.optim.optimizer_info import ADABELIEF, inputs


def model_and_closure():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
    x = torch.rand(16, 4)

    def closure():
        model.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    return model, closure


def trained(named=False, steps=3, **kwargs):
    model, closure = model_and_closure()
    optimizer = AdaBelief(model.named_parameters() if named else model.parameters(), **kwargs)
    for _ in range(steps):
        optimizer.step(closure)
    return model, closure, optimizer


def assert_same(first, second):
    """Two state dicts hold the same, names aside: the same keys in the same order, equal tensors."""
    for a, b in zip(first["param_groups"], second["param_groups"], strict=True):
        named = {"param_names"}
        assert {k: v for k, v in a.items() if k not in named} == {k: v for k, v in b.items() if k not in named}
    assert first["state"].keys() == second["state"].keys()
    for id_, values in first["state"].items():
        assert list(values) == list(second["state"][id_])
        for key, value in values.items():
            other = second["state"][id_][key]
            assert value.dtype == other.dtype and value.device == other.device and torch.equal(value, other)


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_a_twin_that_loads_the_state_goes_on_identically(kwargs):
    model, closure, optimizer = trained(**kwargs)
    twin_model, twin_closure = model_and_closure()
    twin_model.load_state_dict(model.state_dict())
    twin = AdaBelief(twin_model.parameters(), **kwargs)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(7):
        optimizer.step(closure)
        twin.step(twin_closure)
        for a, b in zip(model.parameters(), twin_model.parameters(), strict=True):
            assert torch.equal(a, b)
    assert_same(optimizer.state_dict(), twin.state_dict())


@pytest.mark.parametrize(("named", "named_twin"), [(False, True), (True, False), (True, True)])
def test_the_names_of_parameters_are_kept_when_either_side_has_them(named, named_twin):
    model, _, optimizer = trained(named)
    twin = AdaBelief(model.named_parameters() if named_twin else model.parameters())
    twin.load_state_dict(optimizer.state_dict())
    assert_same(twin.state_dict(), optimizer.state_dict())
    assert twin.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_saving_and_loading_a_file_gives_the_same_also_with_weights_only(kwargs):
    state_dict = trained(named=True, **kwargs)[2].state_dict()
    file = io.BytesIO()
    torch.save(state_dict, file)
    for weights_only in (False, True):
        file.seek(0)
        assert_same(torch.load(file, weights_only=weights_only), state_dict)


@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_a_state_dict_without_the_later_flags_and_with_a_number_for_step_loads_silently(kwargs):
    _, closure, optimizer = trained(**kwargs)
    older = copy.deepcopy(optimizer.state_dict())
    for group in older["param_groups"]:
        for flag in ADABELIEF.not_og_supported_flags:
            del group[flag]
    for values, number in zip(older["state"].values(), itertools.cycle((int, float))):
        values["step"] = number(values["step"])
    expected = optimizer.state_dict()
    optimizer.load_state_dict(older)
    assert_same(optimizer.state_dict(), expected)
    optimizer.step(closure)
    assert all(state["step"] == 4 for state in optimizer.state.values())


def test_a_pickle_of_an_older_version_gets_newer_options_and_tensor_steps():
    _, closure, optimizer = trained(lr=0.01, foreach=True)
    state = copy.deepcopy(optimizer.__getstate__())
    for options in (state["defaults"], *state["param_groups"]):
        for later in ("maximize", "foreach", "fused", "capturable", "differentiable", "warmup", "residual"):
            del options[later]
    for values in state["state"].values():
        values["step"] = int(values["step"])
    loaded = AdaBelief.__new__(AdaBelief)
    loaded.__setstate__(state)
    group = loaded.param_groups[0]
    assert (group["lr"], group["foreach"], group["capturable"], group["residual"]) == (0.01, None, False, "updated")
    assert all(torch.equal(values["step"], torch.tensor(3.0)) for values in loaded.state.values())
    for param in group["params"]:
        param.grad = torch.ones_like(param)
    loaded.step()
    assert all(values["step"] == 4 for values in loaded.state.values())
    loaded.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert loaded.param_groups[1]["residual"] == "updated"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("kwargs", inputs("forloop", "foreach", "fused"))
def test_copies_have_all_public_attributes_and_the_state(kwargs, copied):
    optimizer = trained(**kwargs)[2]
    twin = copied(optimizer)
    assert {k for k in vars(optimizer) if k[0] != "_"} == {k for k in vars(twin) if k[0] != "_"}
    assert_same(twin.state_dict(), optimizer.state_dict())
    twin.step()
    assert all(values["step"] == 3 for values in optimizer.state.values())


def test_a_parameter_that_had_no_gradient_yet_is_not_in_the_state_and_starts_after_loading():
    model, closure, _ = trained()
    late = torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBelief([*model.parameters(), late])
    optimizer.step(closure)
    twin = AdaBelief([*model.parameters(), late])
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert 4 not in twin.state_dict()["state"]
    late.grad = torch.ones(2)
    twin.step(closure)
    assert twin.state[late]["step"] == 1 and twin.state[next(model.parameters())]["step"] == 2


def test_state_follows_the_parameters_device_and_dtype_and_step_stays_on_the_cpu():
    _, _, optimizer = trained(amsgrad=True)
    elsewhere = model_and_closure()[0].to("meta", torch.float64)
    moved = AdaBelief(elsewhere.parameters(), amsgrad=True)
    moved.load_state_dict(optimizer.state_dict())
    for values in moved.state.values():
        assert values["step"].device.type == "cpu" and values["step"] == 3
        averages = [value for key, value in values.items() if key != "step"]
        assert len(averages) == 3
        assert all(v.device.type == "meta" and v.dtype == torch.float64 for v in averages)


def test_step_follows_the_parameters_device_when_capturable():
    checkpoint = trained()[2].state_dict()
    moved = AdaBelief(model_and_closure()[0].to("meta").parameters(), capturable=True)
    moved.load_state_dict(checkpoint)
    assert all(values["step"].device.type == "meta" for values in moved.state.values())


def test_loading_leaves_the_state_dict_given_as_it_is():
    optimizer = trained()[2]
    state_dict = optimizer.state_dict()
    kept = copy.deepcopy(state_dict)
    AdaBelief(model_and_closure()[0].double().parameters()).load_state_dict(state_dict)
    assert_same(state_dict, kept)


def test_state_dict_hooks_run_before_and_after():
    optimizer = trained(steps=0)[2]
    optimizer.register_state_dict_pre_hook(lambda opt: opt.state.__setitem__("test", 1))

    def post_hook(_, state_dict):
        return {**state_dict, "saw": state_dict["state"].pop("test")}

    assert optimizer.state_dict()["state"]["test"] == 1
    optimizer.register_state_dict_post_hook(post_hook)
    assert optimizer.state_dict()["saw"] == 1


def test_load_hooks_run_in_order_and_may_change_or_replace_the_state_dict():
    optimizer = trained()[2]

    def change(_, state_dict):
        state_dict["param_groups"][0]["lr"] = 0.002

    def replace(_, state_dict):
        replaced = copy.deepcopy(state_dict)
        replaced["param_groups"][0]["lr"] = 0.003
        return replaced

    def note(opt):
        opt.state["lr seen"] = opt.param_groups[0]["lr"]

    optimizer.register_load_state_dict_post_hook(note)
    optimizer.register_load_state_dict_pre_hook(change)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == optimizer.state["lr seen"] == 0.002
    optimizer.register_load_state_dict_pre_hook(replace, prepend=True)
    optimizer.load_state_dict(optimizer.state_dict())  # which now also has what a hook left in the state
    assert optimizer.state["lr seen"] == 0.002
    optimizer.register_load_state_dict_pre_hook(replace)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state["lr seen"] == 0.003


def test_a_number_of_groups_or_parameters_that_differs_is_an_error():
    model, _, optimizer = trained()
    with pytest.raises(ValueError, match="param groups are not this optimizer's"):
        AdaBelief([{"params": [p]} for p in model.parameters()]).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="param groups are not this optimizer's"):
        AdaBelief([next(model.parameters())]).load_state_dict(optimizer.state_dict())
