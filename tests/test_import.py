"""What importing the package brings."""

import subprocess
import sys

import pytest

import lightning_adabelief

USE_THE_OPTIMIZER = """
import sys, torch
from lightning_adabelief import AdaBelief
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
AdaBelief([param]).step()
heavy = {"pytorch_lightning", "lightning", "torchvision", "matplotlib", "torchmetrics", "rich", "sklearn"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_the_optimizer_alone_brings_neither_lightning_nor_torchvision_nor_matplotlib():
    subprocess.run([sys.executable, "-c", USE_THE_OPTIMIZER], check=True)


def test_submodules_that_the_readme_names_are_loaded_when_first_used():
    code = "import lightning_adabelief as la; print(la.landscapes.run.__name__, la.beliefs.measure.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "run measure\n"


def test_public_names_are_there_and_others_are_an_attribute_error():
    for name in lightning_adabelief.__all__:
        assert getattr(lightning_adabelief, name).__name__ == name
        assert name in dir(lightning_adabelief)
    with pytest.raises(AttributeError, match="AdaBeliefs"):
        lightning_adabelief.AdaBeliefs  # noqa: B018
