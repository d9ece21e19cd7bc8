"""Runs of every release of adabelief-pytorch, and of AdaBelief's own first version, go on here."""

import copy
import re
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import migrate
from tests.optim.checkpoints import record
from tests.optim.reference import original

FOLDER = Path(record.__file__).parent
RELEASES = ("0.0.5", "0.1.0", "0.2.0", "0.2.1")
RECORDED = {release: torch.load(FOLDER / f"adabelief-pytorch-{release}.pt", weights_only=True) for release in RELEASES}

ROUNDING = 1e-14
"""Relative; 0 where the files were recorded. Another CPU may round a * b + c once or twice."""

DIFFERENT = {
    ("0.0.5", "rectified"): 1e-6,  # it corrects the bias of the root before eps is added
    ("0.0.5", "amsgrad"): 1e-6,  # there eps, of 1e-8, accumulates in the largest s_t alone
    ("0.1.0", "coupled decay"): 0.1,  # there it has no effect: it comes after the averages
}
"""How far a run strays from the release's own, relatively, where it does."""


def go_on(case, recorded, **options):
    """Load the checkpoint halfway and take the other half of the steps."""
    params = [param.clone().requires_grad_() for param in recorded["params"]]
    optimizer = AdaBelief(record.make_groups(case, params), **{**recorded["options"], **options})
    optimizer.load_state_dict(copy.deepcopy(recorded["checkpoint"]))  # for the steps change its tensors
    record.take_steps(optimizer, params, record.make_gradients()[record.HALF :])
    return [param.detach() for param in params]


def largest_difference(params, expected):
    return max(((a - b).abs() / b.abs()).max().item() for a, b in zip(params, expected, strict=True))


@pytest.mark.parametrize("case", record.CASES)
@pytest.mark.parametrize("release", RELEASES)
def test_a_run_of_adabelief_pytorch_goes_on(release, case):
    recorded = RECORDED[release][case]
    with pytest.warns(UserWarning, match="checkpoint of adabelief-pytorch"):
        params = go_on(case, recorded)
    difference, allowed = largest_difference(params, recorded["final"]), DIFFERENT.get((release, case), ROUNDING)
    assert difference <= allowed
    assert (difference > ROUNDING) == ((release, case) in DIFFERENT)


def test_the_coupled_decay_of_0_1_0_had_no_effect_and_is_left_out_by_weight_decay_0():
    recorded = copy.deepcopy(RECORDED["0.1.0"]["coupled decay"])
    recorded["checkpoint"]["param_groups"][0]["weight_decay"] = 0.0
    with pytest.warns(UserWarning, match="checkpoint of adabelief-pytorch"):
        assert largest_difference(go_on("coupled decay", recorded), recorded["final"]) <= ROUNDING


@pytest.mark.parametrize("case", record.CASES)
def test_what_was_recorded_is_what_the_installed_release_does(case):
    installed = RECORDED[version("adabelief-pytorch")][case]
    recorded = record.record(case, original)
    assert repr(recorded["checkpoint"]) == repr(installed["checkpoint"])
    assert largest_difference(recorded["final"], installed["final"]) <= ROUNDING


OWN = sorted(FOLDER.glob("own-*.pt"))


@pytest.mark.parametrize("case", record.CASES)
@pytest.mark.parametrize("file", OWN, ids=lambda file: file.stem)
@pytest.mark.parametrize("implementation", [{}, dict(foreach=True), dict(fused=True)], ids=str)
def test_a_run_of_an_earlier_version_of_our_own_goes_on_silently(file, case, implementation):
    recorded = torch.load(file, weights_only=True)[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = go_on(case, recorded, **implementation)
    assert largest_difference(params, recorded["final"]) <= (1e-12 if implementation else ROUNDING)


def test_there_is_a_file_for_each_release_that_migrate_names():
    first, last = re.search(r"``adabelief-pytorch`` ([\d.]+) to ([\d.]+)", migrate.__doc__).groups()
    assert (first, last) == (RELEASES[0], RELEASES[-1]) and OWN
