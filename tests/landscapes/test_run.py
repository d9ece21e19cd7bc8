"""The whole comparison: its files, pictures and tables."""

import csv
import io
import itertools
import math
import os

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from lightning_adabelief import landscapes
from lightning_adabelief.landscapes.figures import draw_losses, draw_paths
from lightning_adabelief.landscapes.functions import find_landscape
from lightning_adabelief.landscapes.optimizers import make_contenders
from lightning_adabelief.landscapes.rates import RELATIVE_RATES, compare_on, describe_criterion
from lightning_adabelief.landscapes.table import make_csv
from lightning_adabelief.line_styles import FIXED, STYLES, choose_styles

FILES = {"paths.png", "losses.png", "regions.png", "paths.gif", "steps.md", "steps.csv"}


def unbounded(x, y):
    return -(x**2) * torch.exp(y)


def partly_undefined(x, y):
    return torch.log(x) ** 2 + y**2


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "made"
    return out, landscapes.run(out, functions=["inseparable-l2", "beale"], steps=40)


def test_it_writes_its_files_and_nothing_else(compared):
    out, comparison = compared
    assert set(os.listdir(out)) == FILES == {file.name for file in comparison.files}


def test_pictures_are_of_a_size_to_look_at(compared):
    out, _ = compared
    for name in ("paths.png", "losses.png", "regions.png"):
        with Image.open(out / name) as image:
            assert (
                image.format == "PNG" and min(image.size) > 500 and len(np.unique(np.asarray(image.convert("L")))) > 50
            )


def test_the_animation_begins_at_the_start_and_ends_with_the_whole_paths(compared):
    out, _ = compared
    with Image.open(out / "paths.gif") as image:
        frames = []
        for frame in range(image.n_frames):
            image.seek(frame)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
    color = (255 * np.array(to_rgb(FIXED["adabelief"].color))).round()
    drawn = [int((np.abs(frame - color).max(-1) < 12).sum()) for frame in frames]
    assert len(frames) > 20 and drawn[-1] > 1.5 * drawn[0] and all(b >= 0.95 * a for a, b in itertools.pairwise(drawn))


def test_the_tables_give_the_outcomes(compared):
    out, comparison = compared
    with (out / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    outcomes = [outcome for of_one in comparison.outcomes.values() for outcome in of_one]
    assert [(row["function"], row["optimizer"]) for row in rows] == [(o.landscape.name, o.optimizer) for o in outcomes]
    for row, outcome in zip(rows, outcomes, strict=True):
        assert float(row["lr"]) == outcome.lr
        assert row["steps"] == (f"{outcome.reached:.0f}" if math.isfinite(outcome.reached) else "")
        assert int(row["nearby_reached"]) == sum(math.isfinite(step) for step in outcome.reached_nearby)
    text = (out / "steps.md").read_text()
    assert (
        text.count("\n| ") == 1 + len(outcomes) and "| beale | SGD |" in text and "Seed 0; lightning-adabelief" in text
    )


def test_a_second_run_is_the_same_to_the_byte_and_replaces_the_first(compared, tmp_path):
    out, _ = compared
    (tmp_path / "steps.csv").write_text("old")
    landscapes.run(tmp_path, functions=["inseparable-l2", "beale"], steps=40, animation=False)
    for name in FILES - {"paths.gif"}:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name
    assert not (tmp_path / "paths.gif").exists()


def test_the_plots_say_how_learning_rates_were_chosen():
    searched = describe_criterion(make_contenders(["adam"]), 0.05)
    assert f"the best of {len(RELATIVE_RATES)}, a factor of 2 apart, from 1/1024 to 8192 times its default" in searched
    assert describe_criterion(make_contenders(["adam"], lr=0.1), 0.05) == "Learning rates as given."
    contenders = make_contenders(["sgd"])
    outcomes = {"l1": compare_on(landscapes.LANDSCAPES["l1"], contenders, 3, 0.05, 0)}
    for figure in (draw_paths(outcomes, searched).figure, draw_losses(outcomes, searched, 0.05)):
        assert "the best of 24" in figure.get_supxlabel().replace("\n", " ")


def test_lines_differ_in_style_and_marker_where_colours_are_not_seen():
    assert len({str(style.linestyle) for style in STYLES}) == len({style.marker for style in STYLES}) == len(STYLES)
    styles = choose_styles(["RMSprop", "AdaBelief", "SGD", "Lion"])
    assert styles["AdaBelief"] == FIXED["adabelief"] and len(set(styles.values())) == 4


@pytest.mark.parametrize(
    ("name", "start", "lr"),
    [
        ("rosenbrock", None, 10.0),  # SGD diverges
        (f"{__name__}.unbounded", (1.0, 1.0), None),
        (f"{__name__}.partly_undefined", (0.1, 1.0), None),
        ("l1", (0.0, 0.0), None),  # the minimum itself
    ],
)
def test_what_diverges_has_no_minimum_or_nowhere_to_go_is_drawn_all_the_same(name, start, lr):
    contenders = make_contenders(["sgd", "adam"], lr=lr)
    outcomes = {name: compare_on(find_landscape(name, start), contenders, 20, 0.05, 0)}
    for figure in (draw_paths(outcomes, "").figure, draw_losses(outcomes, "", 0.05)):
        figure.savefig(io.BytesIO(), dpi=40)
    assert "nan" not in make_csv(outcomes.values())


def test_optimizers_that_never_arrive_are_said_not_to(tmp_path):
    comparison = landscapes.run(
        tmp_path, functions=["rosenbrock"], optimizers=["sgd"], steps=5, betas=(0.5, 0.9), animation=False
    )
    (outcome,) = comparison.outcomes["rosenbrock"]
    assert outcome.reached == math.inf and "| - | 0 of 10 | - |" in (tmp_path / "steps.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "The number of steps is 0"),
        ({"steps": 2.5}, "The number of steps is 2.5"),
        ({"tolerance": math.nan}, "The tolerance is nan"),
        ({"lr": math.inf}, "The learning rate of SGD is inf"),
        ({"functions": []}, "There is no function"),
        ({"functions": ["l2"]}, "Unknown function: 'l2'"),
    ],
)
def test_options_that_are_not_possible_are_refused_before_the_folder_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        landscapes.run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
