"""What docs/from-adabelief.md says of other packages' AdaBeliefs holds for those that are installed."""

import contextlib
import copy
import inspect
import io
import re
import warnings
from importlib import import_module
from importlib.metadata import version

import pytest
import torch
from packaging.version import Version

from lightning_adabelief import AdaBelief
from tests.documents import read

PAGE = read("docs/from-adabelief.md")
CLASSES = {
    "here": AdaBelief,
    "adabelief-pytorch 0.2.1": import_module("adabelief_pytorch").AdaBelief,
    "timm 1.0": import_module("timm.optim.adabelief").AdaBelief,
    "pytorch-optimizer 4.1": import_module("pytorch_optimizer").AdaBelief,
}
OTHERS = list(CLASSES)[1:]


def table(heading):
    """The rows of the first table under a heading, each a dict by column."""
    rows = re.findall(r"^\| (.*) \|$", PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0], re.MULTILINE)
    header, *rows = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


@pytest.mark.parametrize("column", OTHERS)
def test_options_have_the_names_and_defaults_of_the_table(column):
    here, there = (inspect.signature(CLASSES[name]).parameters for name in ("here", column))
    rows = [row for row in table("Options side by side") if "=" in row["here"]]
    assert len(rows) > 7
    for row in rows:
        name, default = row["here"].strip("`").split("=")
        assert here[name].default == eval(default)
        theirs = re.findall(r"`(\w+)=([^`]+)`", row[column]) or [(name, default)]
        assert there[theirs[0][0]].default == eval(theirs[0][1])


def train(cls, steps=8, dtype=torch.float32, grad=None, **options):
    """Take some steps on one parameter, and return it with its optimizer."""
    param = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    generator = torch.Generator().manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = cls([param], **options)
    for _ in range(steps):
        param.grad = torch.randn(4, generator=generator).to(dtype) if grad is None else grad.clone()
        optimizer.step()
    return param, optimizer


def keeps_state_in_float32(cls):
    for dtype in (torch.bfloat16, torch.float16):
        param, optimizer = train(cls, dtype=dtype)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if optimizer.state[param]["exp_avg_var"].dtype != torch.float32:
            return False
    return True


def takes_a_zero_beta1(cls):
    options = {"residual": "previous"} if has_option("residual")(cls) else {}
    param, _ = train(cls, grad=torch.full((4,), 0.1), betas=(0.0, 0.999), **options)
    return bool((param > 0.9).all())


def heeds_amsgrad_with_rectify(cls):
    name = "amsgrad" if has_option("amsgrad")(cls) else "ams_bound"
    ends = [train(cls, 1000, lr=1e-2, rectify=True, **{name: value})[0] for value in (True, False)]
    return not torch.equal(*ends)


def goes_on_from_adam(cls):
    _, adam = train(torch.optim.Adam)
    param, optimizer = train(cls)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.load_state_dict(adam.state_dict())
        optimizer.step()
    except KeyError:
        return False
    return bool(torch.isfinite(param).all())


def leaves_gradients_as_they_are(cls):
    name = "weight_decouple" if has_option("weight_decouple")(cls) else "decoupled_decay"
    param, _ = train(cls, 1, grad=torch.ones(4), weight_decay=0.1, **{name: False})
    return torch.equal(param.grad, torch.ones(4))


def has_option(name):
    return lambda cls: name in inspect.signature(cls).parameters


CHECKS = {
    "float32 state for bfloat16 and float16 weights, after loading too": keeps_state_in_float32,
    "a step in one pass over memory, `fused=True`": has_option("fused"),
    "m_t and s_t in 16 or 8 bits, `state_bits`": has_option("state_bits"),
    "beta1 = 0": takes_a_zero_beta1,
    "`amsgrad` acts with `rectify`": heeds_amsgrad_with_rectify,
    "goes on from Adam's checkpoints": goes_on_from_adam,
    "a warmup that follows the optimizer's own steps": has_option("warmup"),
    'steps with a NaN are left out, `nonfinite="skip"`': has_option("nonfinite"),
    "gradients stay as they are": leaves_gradients_as_they_are,
}


@pytest.mark.parametrize("row", table("What it does that others don't"), ids=lambda row: next(iter(row.values())))
@pytest.mark.filterwarnings("ignore:This overload of add:UserWarning")
@pytest.mark.skipif(Version(version("timm")) < Version("1.0.31"), reason="the page tells of timm from 1.0.31 on")
def test_each_does_or_does_not_do_what_the_table_says(row):
    check = CHECKS[row["what"]]
    assert row == {"what": row["what"]} | {name: "yes" if check(cls) else "no" for name, cls in CLASSES.items()}


def test_every_check_is_a_row_of_the_table():
    assert [row["what"] for row in table("What it does that others don't")] == list(CHECKS)
