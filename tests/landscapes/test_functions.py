"""The functions: the paper's, and the checks of a user's own."""

import math

import pytest
import torch

from lightning_adabelief.landscapes.functions import LANDSCAPES, find_landscape
from lightning_adabelief.landscapes.importing import InvalidOptionError

HERE = "tests.landscapes.test_functions"


def valley(x, y):
    return (x - 1) ** 2 + 10 * y**2


def of_one_argument(point):
    return point[0]


def summed(x, y):
    return (x**2 + y**2).sum()


def mixed(x, y):
    return x**2 + y.mean()


def number(x, y):
    return 3.0


def detached(x, y):
    return (x + y).detach()


def undefined(x, y):
    return torch.log(x) + y


def steep(x, y):
    return x.sqrt() + y**2


text = "valley"


@pytest.mark.parametrize("name", LANDSCAPES)
def test_the_papers_functions_are_0_at_their_minimum_and_nowhere_less(name):
    landscape = LANDSCAPES[name]
    assert landscape.losses(torch.tensor(landscape.minimum, dtype=torch.float64)) == 0
    points = torch.cartesian_prod(*[torch.linspace(-5, 5, 101, dtype=torch.float64)] * 2)
    assert landscape.losses(points).min() >= 0


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("l1", 2.5),
        ("inseparable-l1", 2.75),
        ("inseparable-l2", 6.875),
        ("beale", (1.5 + 2.5 + 6.25) ** 2 + (2.25 + 2.5 - 15.625) ** 2 + (2.625 + 2.5 + 39.0625) ** 2),
        ("rosenbrock", 25 + 100 * 20**2),
    ],
)
def test_the_loss_at_each_start_is_what_its_formula_says(name, loss):
    landscape = find_landscape(name)
    assert float(landscape.losses(torch.tensor(landscape.start, dtype=torch.float64))) == pytest.approx(loss)


def test_a_function_of_the_users_own_is_found_by_import_path_and_starts_where_it_is_told():
    landscape = find_landscape(f"{HERE}.valley", start=[2.0, 1.0])
    assert (landscape.start, landscape.minimum, landscape.formula) == ((2.0, 1.0), None, "valley")
    assert float(landscape.losses(torch.tensor([2.0, 1.0]))) == 11


def test_a_start_takes_the_place_of_the_papers():
    assert find_landscape("beale", start=(1.0, 1.0)).start == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("beal", None, "Unknown function: 'beal'. Did you mean 'beale'"),
        ("nowhere.valley", (0.0, 1.0), "can't be imported: ModuleNotFoundError"),
        (f"{HERE}.vally", (0.0, 1.0), "has no function 'vally'. Did you mean 'valley'"),
        (f"{HERE}.text", (0.0, 1.0), "is of type str, not a function"),
        (f"{HERE}.valley", None, "has no start. Give one"),
        (f"{HERE}.valley", (math.nan, 1.0), "Give two finite numbers"),
        (f"{HERE}.valley", (0.0, 1.0, 2.0), "Give two finite numbers"),
        (f"{HERE}.of_one_argument", (0.0, 1.0), "raised TypeError: .* It is given two float64 tensors"),
        (f"{HERE}.summed", (0.0, 1.0), r"returned the shape \(\) for x and y of the shape \(3,\)"),
        (f"{HERE}.mixed", (0.0, 1.0), "for three points together and .* for each alone"),
        (f"{HERE}.number", (0.0, 1.0), "returned a float"),
        (f"{HERE}.detached", (0.0, 1.0), "has no gradient"),
        (f"{HERE}.undefined", (-1.0, 1.0), r"is nan at its start \(-1.0, 1.0\)"),
        (f"{HERE}.steep", (0.0, 1.0), r"The gradient of .* is \(inf, 2.0\) at its start"),
    ],
)
def test_a_function_that_cannot_be_descended_is_refused_with_the_reason(name, start, message):
    with pytest.raises(InvalidOptionError, match=message):
        find_landscape(name, start)
