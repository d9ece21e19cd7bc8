"""Options at the door: NumPy's and OmegaConf's values become Python's own, what is neither is refused."""

import collections
import io
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.options import IMPLEMENTATION_OPTIONS, check_options, check_values

BOOLS = (
    "amsgrad",
    "weight_decouple",
    "fixed_decay",
    "rectify",
    "degenerated_to_sgd",
    "maximize",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
)


class ListConfig(collections.UserList):
    """A sequence that is neither list nor tuple, as OmegaConf's."""


PLAIN = [
    (dict(lr=np.float64(1e-2)), 1e-2),
    (dict(lr=np.float32(0.5)), 0.5),
    (dict(lr=np.array(1e-2)), 1e-2),
    (dict(lr=np.int64(1)), 1),
    (dict(lr=Fraction(1, 4)), 0.25),
    (dict(betas=ListConfig([0.8, 0.99])), (0.8, 0.99)),
    (dict(betas=[np.float64(0.8), 0.99]), (0.8, 0.99)),
    (dict(betas=np.array([0.8, 0.99])), (0.8, 0.99)),
    (dict(eps=np.float64(1e-8)), 1e-8),
    (dict(eps=torch.tensor(1e-8, dtype=torch.float64)), 1e-8),
    (dict(weight_decay=np.float32(0.5)), 0.5),
    (dict(weight_decay=torch.tensor(0.5)), 0.5),
    (dict(warmup=torch.tensor(5)), 5),
    (dict(warmup=torch.tensor(0.5), total_steps=10), 0.5),
    (dict(warmup=np.int32(5)), 5),
    (dict(total_steps=np.int64(100)), 100),
    (dict(total_steps=100.0), 100),
    (dict(total_steps=torch.tensor(100)), 100),
    (dict(residual=np.str_("previous")), "previous"),
    *((dict([(name, np.bool_(False))]), False) for name in BOOLS),
    (dict(maximize=np.bool_(True)), True),
    (dict(amsgrad=1), True),
    (dict(rectify=0), False),
    (dict(amsgrad=torch.tensor(True)), True),
    (dict(foreach=None), None),
]

REFUSED = [
    (dict(lr=True), "lr: True. lr must be a number, not a bool"),
    (dict(lr=np.bool_(True)), "lr must be a number, not a bool"),
    (dict(lr=None), "lr: None. lr must be a number, not a NoneType"),
    (dict(lr=1j), "lr must be a number, not a complex"),
    (dict(lr=10**400), "lr: it is larger than any float"),
    (dict(lr=[1e-3]), r"lr: \[0.001\]. lr must be a number, not a list"),
    (dict(lr=np.array([1e-3, 1e-2])), "lr must be a number, not a ndarray"),
    (dict(lr=np.float64("nan")), "learning rate: nan"),
    (dict(lr=torch.tensor(math.inf)), "learning rate: inf"),
    (dict(lr=torch.tensor(1j)), "Tensor lr must hold a real number, got one of torch.complex64"),
    (dict(lr=torch.tensor(True)), "Tensor lr must hold a real number, got one of torch.bool"),
    (dict(eps=False), "eps: False"),
    (dict(eps=torch.ones(2)), "Tensor eps must be 1-element"),
    (dict(eps=math.inf), "epsilon value: inf"),
    (dict(weight_decay=True), "weight_decay: True"),
    (dict(weight_decay=math.nan), "weight_decay value: nan"),
    (dict(weight_decay=torch.tensor(0.1, requires_grad=True)), "requires grad.*give weight_decay=0.1"),
    (dict(betas=(True, 0.9)), r"betas\[0\]: True"),
    (dict(betas={0.9, 0.99}), "betas must be two numbers"),
    (dict(betas=ListConfig([0.9])), "betas must be two numbers"),
    (dict(betas="09"), "betas must be two numbers"),
    (dict(betas=(np.float64("nan"), 0.9)), "index 0: nan"),
    (dict(warmup=True), "warmup: True"),
    (dict(warmup=math.nan), "warmup: nan"),
    (dict(warmup=5.0), "warmup: 5.0. As a float it is a fraction"),
    (dict(warmup=torch.ones(2)), "Tensor warmup must be 1-element"),
    (dict(total_steps=0.5), "total_steps: 0.5. It is the run's number of steps, a whole number"),
    (dict(total_steps=99.5), "total_steps: 99.5"),
    (dict(total_steps=True), "total_steps: True"),
    (dict(total_steps=math.nan), "total_steps: nan"),
    (dict(residual=None), "residual: None"),
    (dict(residual=["updated"]), r"residual: \['updated'\]"),
    *((dict([(name, "False")]), f"{name}: 'False'. {name} must be True or False.*quotes") for name in BOOLS),
    (dict(maximize="true"), "maximize: 'true'"),
    (dict(amsgrad=None), "amsgrad: None"),
    (dict(amsgrad=2), "amsgrad: 2"),
    (dict(rectify=1.0), "rectify: 1.0"),
    (dict(foreach="auto"), "foreach: 'auto'"),
]


def parameter():
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.full((3,), 0.5)
    return param


def assert_is(value, expected):
    assert value == expected and type(value) is type(expected)
    if isinstance(expected, tuple):
        assert [type(v) for v in value] == [type(e) for e in expected]


@pytest.mark.parametrize(("options", "expected"), PLAIN, ids=str)
def test_a_value_becomes_pythons_own_at_every_door_and_can_be_saved(options, expected):
    name = next(iter(options))
    of_all = AdaBelief([parameter()], **options)
    of_group = AdaBelief([{"params": [parameter()], **options}])
    late = AdaBelief([parameter()])
    late.add_param_group({"params": [parameter()], **options})
    optimizers = [of_all, of_group, late]
    if name not in IMPLEMENTATION_OPTIONS:  # which a checkpoint does not change
        loaded = AdaBelief([parameter()])
        saved = loaded.state_dict()
        saved["param_groups"][0] |= options
        loaded.load_state_dict(saved)
        optimizers.append(loaded)
    for optimizer in optimizers:
        assert_is(optimizer.param_groups[-1][name], expected)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    assert_is(of_all.defaults[name], expected)
    of_all.step()


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_what_is_no_such_value_is_refused_at_every_door(options, message):
    with pytest.raises(ValueError, match=message):
        AdaBelief([parameter()], **options)
    with pytest.raises(ValueError, match=message):
        AdaBelief([{"params": [parameter()], **options}])
    optimizer = AdaBelief([parameter()])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter()], **options})
    with pytest.raises(ValueError, match=message):
        check_values(options)
    assert len(optimizer.param_groups) == 1
    if not options.keys() & set(IMPLEMENTATION_OPTIONS):
        saved = optimizer.state_dict()
        saved["param_groups"][0] |= options
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0].items() >= check_options(optimizer.defaults).items()


def test_tensor_lr_and_betas_stay_the_tensors_they_are():
    lr, betas = torch.tensor(1e-2), (torch.tensor(0.9), torch.tensor(0.99))
    group = AdaBelief([parameter()], lr=lr, betas=betas).param_groups[0]
    assert group["lr"] is lr and group["betas"][0] is betas[0] and group["betas"][1] is betas[1]


def test_an_lr_that_a_scheduler_takes_from_numpy_is_saved_as_pythons_own():
    optimizer = AdaBelief([parameter()])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: np.exp(-t))
    optimizer.step()
    scheduler.step()
    assert isinstance(optimizer.param_groups[0]["lr"], np.float64)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["param_groups"][0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("option", ["lr", "eps", "weight_decay", "warmup"])
def test_an_option_set_to_no_number_is_an_error_of_the_next_step_that_moves_nothing(option):
    optimizer = AdaBelief([{"params": [parameter()]}, {"params": [parameter()]}])
    optimizer.step()
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    optimizer.param_groups[1][option] = "0.1"
    with pytest.raises(ValueError, match=f"{option}: '0.1' is a str"):
        optimizer.step()
    for group, was in zip(optimizer.param_groups, before, strict=True):
        assert torch.equal(group["params"][0], was) and optimizer.state[group["params"][0]]["step"] == 1
