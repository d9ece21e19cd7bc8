"""The optimizer's face: options, state, saving and loading, errors."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
from adabelief_pytorch import AdaBelief as Original

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.options import LATER_OPTIONS
from tests.optim.reference import gradients, run

START = [torch.linspace(-1, 1, 12).reshape(3, 4), torch.ones(5)]
SHAPES = [(3, 4), (5,)]

OPTIONS = dict(
    lr=2e-3,
    betas=(0.8, 0.99),
    eps=1e-12,
    weight_decay=0.1,
    amsgrad=True,
    weight_decouple=False,
    fixed_decay=True,
    rectify=False,
    degenerated_to_sgd=False,
    warmup=0.1,
    total_steps=50,
    residual="previous",
    maximize=True,
    foreach=True,
)


def parameter(dtype=torch.float32):
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    param.grad = torch.full_like(param, 0.5)
    return param


def test_arguments_have_the_original_names_order_and_defaults():
    theirs = list(inspect.signature(Original).parameters.values())
    ours = list(inspect.signature(AdaBelief).parameters.values())
    for their, our in zip(theirs, ours, strict=False):
        assert (our.name, our.default, our.kind) == (their.name, their.default, their.kind)
    assert all(our.kind is inspect.Parameter.KEYWORD_ONLY for our in ours[len(theirs) :])


def test_a_call_written_for_the_original_runs_silently(capsys):
    optimizer = AdaBelief([parameter()], 1e-3, (0.9, 0.999), 1e-16, 0, False, True, False, True, True, False)
    optimizer.step()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_every_option_is_a_group_option_shown_in_repr_and_saved():
    optimizer = AdaBelief([{"params": [parameter()], **OPTIONS}, {"params": [parameter()]}])
    defaults = {name: value.default for name, value in inspect.signature(AdaBelief).parameters.items()}
    del defaults["params"], defaults["print_change_log"]
    first, second = optimizer.state_dict()["param_groups"]
    for name, default in defaults.items():
        assert first[name] == OPTIONS.get(name, default)
        assert second[name] == default
        assert f"{name}: {first[name]}" in repr(optimizer)


def test_options_the_original_lacks_have_the_constructors_defaults():
    parameters = inspect.signature(AdaBelief).parameters.values()
    assert LATER_OPTIONS == {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def test_options_of_a_group_act_as_they_do_for_the_whole_optimizer():
    grads = gradients(30, SHAPES, dtype=torch.float32)
    options = OPTIONS | dict(foreach=None)
    whole, _ = run(lambda p: AdaBelief(p, **options), grads, START)
    grouped, _ = run(lambda p: AdaBelief([{"params": [p[0]], **options}, {"params": [p[1]]}]), grads, START)
    plain, _ = run(lambda p: AdaBelief(p), grads, START)
    assert torch.equal(grouped[0], whole[0])
    assert torch.equal(grouped[1], plain[1])


@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
    ],
    ids=str,
)
def test_state_is_step_and_two_averages_at_least_as_wide_as_float32(dtype, state_dtype):
    param = parameter(dtype)
    optimizer = AdaBelief([param], amsgrad=True)
    optimizer.step()
    state = optimizer.state[param]
    corrections = [name for name in list(state) if name.startswith("weight_correction") and state.pop(name) is not None]
    assert len(corrections) == (2 if param.dtype.itemsize == 2 else 0)
    assert list(state) == ["step", "exp_avg", "exp_avg_var", "max_exp_avg_var"]
    assert state["step"].dtype == torch.float32 and state["step"].shape == () and state["step"] == 1
    assert all(state[key].dtype == state_dtype for key in list(state)[1:])
    assert all(state[key].shape == param.shape for key in list(state)[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_training_goes_on_identically_after_save_and_weights_only_load(dtype):
    grads = gradients(40, SHAPES, dtype=dtype)
    start = [value.to(dtype) for value in START]
    straight, _ = run(lambda p: AdaBelief(p, lr=1e-2), grads, start)

    half, optimizer = run(lambda p: AdaBelief(p, lr=1e-2), grads[:20], start)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    def resumed(params):
        loaded = AdaBelief(params, lr=1e-2)
        loaded.load_state_dict(saved)
        assert all(loaded.state[p][key].dtype == torch.float32 for p in params for key in ("exp_avg", "exp_avg_var"))
        return loaded

    after, _ = run(resumed, grads[20:], [p.detach() for p in half])
    for a, b in zip(after, straight, strict=True):
        assert torch.equal(a, b) and a.isfinite().all()


def test_users_load_hooks_see_float32_state_and_may_replace_the_state_dict():
    param = parameter(torch.bfloat16)
    optimizer = AdaBelief([param])
    optimizer.step()
    loaded, seen = AdaBelief([param]), []
    replacement = copy.deepcopy(optimizer.state_dict())
    replacement["state"][0]["exp_avg_var"].fill_(0.3)
    loaded.register_load_state_dict_pre_hook(lambda _, state_dict: replacement)
    loaded.register_load_state_dict_post_hook(lambda opt: seen.append(opt.state[param]["exp_avg_var"].clone()))
    loaded.load_state_dict(optimizer.state_dict())
    assert torch.equal(seen[0], torch.full((3,), 0.3))


def test_deepcopy_and_pickle_keep_options_and_state():
    optimizer = AdaBelief([parameter()], **OPTIONS)
    optimizer.step()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(twin) == repr(optimizer)
        (state,), (expected,) = twin.state.values(), optimizer.state.values()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
        twin.step()


def test_closure_is_called_with_gradients_on_and_its_loss_returned():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([param], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(100)]
    assert losses[0] == 3.0 and losses[-1] < 0.1


def test_parameters_without_gradient_are_left_alone():
    with_grad, without = parameter(), torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBelief([with_grad, without])
    optimizer.step()
    assert without not in optimizer.state
    assert torch.equal(without, torch.ones(2))


def test_named_parameters_keep_their_names():
    model = torch.nn.Linear(2, 1)
    assert AdaBelief(model.named_parameters()).state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_a_tensor_lr_is_the_number_it_holds():
    grads = gradients(20, SHAPES, dtype=torch.float32)
    tensor, _ = run(lambda p: AdaBelief(p, lr=torch.tensor(0.01, dtype=torch.float64)), grads, START)
    number, _ = run(lambda p: AdaBelief(p, lr=0.01), grads, START)
    assert all(torch.equal(a, b) for a, b in zip(tensor, number, strict=True))


def test_each_groups_implementation_can_be_seen():
    groups = [{"params": [parameter()]}, {"params": [parameter()], "foreach": True}]
    optimizer = AdaBelief([*groups, {"params": [parameter()], "fused": True}])
    assert optimizer.implementations == ["forloop", "foreach", "fused"]


def test_the_former_name_of_implementations_still_works():
    optimizer = AdaBelief([parameter()])
    with pytest.warns(DeprecationWarning, match="AdaBelief.paths is now AdaBelief.implementations"):
        assert optimizer.paths == ["forloop"]


def stepped_with_fraction(total_steps=None, **options):
    optimizer = AdaBelief([{"params": [parameter()]}, {"params": [parameter()], "warmup": 0.1}], **options)
    optimizer.param_groups[1]["total_steps"] = total_steps
    return optimizer


@pytest.mark.parametrize("options", [{}, dict(foreach=True), dict(fused=True)], ids=str)
def test_a_fraction_without_total_steps_is_an_error_of_the_first_step_that_changes_nothing(options):
    optimizer = stepped_with_fraction(**options)
    with pytest.raises(ValueError, match="0.1 without total_steps.*configure_adabelief"):
        optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(group["params"][0], torch.ones(3)) for group in optimizer.param_groups)
    optimizer.param_groups[1]["total_steps"] = 50
    optimizer.step()
    assert all(optimizer.state[group["params"][0]]["step"] == 1 for group in optimizer.param_groups)


def test_a_fraction_without_total_steps_is_saved_and_takes_the_length_of_who_loads_it():
    saved = stepped_with_fraction().state_dict()
    assert saved["param_groups"][1]["total_steps"] is None
    loading = stepped_with_fraction(total_steps=70)
    loading.load_state_dict(saved)
    assert [group["total_steps"] for group in loading.param_groups] == [None, 70]
    loading.step()
    longer = stepped_with_fraction(total_steps=900)
    longer.load_state_dict(loading.state_dict())
    assert longer.param_groups[1]["total_steps"] == 70  # a length that was known is the checkpoint's


def test_a_late_group_with_a_fraction_needs_a_length_too():
    optimizer = AdaBelief([parameter()], warmup=0.5, total_steps=4)
    optimizer.step()
    optimizer.add_param_group({"params": [parameter()]})  # takes the optimizer's
    optimizer.step()
    assert [group["total_steps"] for group in optimizer.param_groups] == [4, 4]
    optimizer.add_param_group({"params": [parameter()], "warmup": 0.5, "total_steps": None})
    before = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    with pytest.raises(ValueError, match="0.5 without total_steps"):
        optimizer.step()
    assert all(torch.equal(g["params"][0], b) for g, b in zip(optimizer.param_groups, before, strict=True))


def test_reset_forgets_the_state():
    param = parameter()
    optimizer = AdaBelief([param])
    optimizer.step()
    optimizer.reset()
    optimizer.step()
    assert optimizer.state[param]["step"] == 1


BAD_OPTIONS = [
    (dict(lr=-0.1), "learning rate: -0.1"),
    (dict(lr=float("nan")), "learning rate: nan"),
    (dict(lr=float("inf")), "learning rate: inf"),
    (dict(lr=torch.ones(2)), "Tensor lr must be 1-element"),
    (dict(betas=(1.0, 0.999)), "index 0: 1.0"),
    (dict(betas=(0.9, -0.1)), "index 1: -0.1"),
    (dict(betas=(0.9, float("nan"))), "index 1: nan"),
    (dict(betas=(0.9,)), r"betas: \(0.9,\)"),
    (dict(betas=(0.0, 0.999)), "residual='previous'"),
    (dict(residual="next"), "residual: 'next'"),
    (dict(eps=-1e-8), "epsilon value: -1e-08"),
    (dict(weight_decay=-1), "weight_decay value: -1"),
    (dict(warmup=-5), "warmup: -5"),
    (dict(warmup=1.5), "warmup: 1.5"),
    (dict(warmup=-0.1, total_steps=10), "warmup: -0.1"),
    (dict(warmup=0.1, total_steps=0), "total_steps: 0"),
    (dict(warmup=0.1, total_steps=float("inf")), "total_steps: inf"),
    (dict(lr="1e-3"), r"lr: '1e-3' is a str.*give lr=0.001 \(YAML"),
    (dict(eps="1e-16"), "eps: '1e-16' is a str.*give eps=1e-16"),
    (dict(weight_decay="heavy"), "weight_decay: 'heavy'. weight_decay must be a number"),
    (dict(betas=0.9), "betas: 0.9. betas must be two numbers"),
    (dict(betas=("0.9", 0.999)), r"betas\[0\]: '0.9' is a str"),
    (dict(warmup="5"), r"warmup: '5' is a str.*give warmup=5 \("),
    (dict(warmup="5%", total_steps=100), "warmup: '5%' is a str.*give warmup=0.05"),
    (dict(warmup=5, total_steps="100"), "total_steps: '100' is a str.*give total_steps=100"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=lambda value: str(value))
def test_a_bad_option_is_a_value_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        AdaBelief([parameter()], **options)
    with pytest.raises(ValueError, match=message):
        AdaBelief([{"params": [parameter()], **options}])


def test_a_bad_group_is_not_added():
    optimizer = AdaBelief([parameter()])
    with pytest.raises(ValueError, match="learning rate: -1"):
        optimizer.add_param_group({"params": [parameter()], "lr": -1})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("foreach", [False, True])
def test_a_sparse_gradient_is_an_error_that_changes_nothing(foreach):
    dense = parameter()
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    optimizer = AdaBelief([{"params": [dense]}, {"params": embedding.parameters()}], foreach=foreach)
    before = dense.detach().clone()
    with pytest.raises(ValueError, match="sparse gradients.*SparseAdam"):
        optimizer.step()
    assert torch.equal(dense, before)
    optimizer.param_groups.pop()
    optimizer.step()
    assert optimizer.state[dense]["step"] == 1


def test_numpys_integers_are_steps_of_warmup():
    numpys, ours = (AdaBelief([parameter()], warmup=steps, rectify=False) for steps in (np.int64(5), 5))
    for optimizer in (numpys, ours):
        optimizer.step()
    assert torch.equal(numpys.param_groups[0]["params"][0], ours.param_groups[0]["params"][0])
