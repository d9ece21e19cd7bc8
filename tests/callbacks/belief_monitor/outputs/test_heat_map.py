"""The heat map's rows, colours and words."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import LogNorm
from PIL import Image

from lightning_adabelief.beliefs.statistic import BY_NAME
from lightning_adabelief.callbacks.belief_monitor.outputs.heat_map import (
    MAX_ROWS,
    PANELS,
    draw,
    group_layers,
    render,
    save_png,
)
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES, LayerHistory


def history(values, steps=(9, 19, 29)):
    """A history of layers whose statistics are all ``values[layer]``, at each step or a step each."""
    made = LayerHistory()
    for i, step in enumerate(steps):
        cells = {name: value[i] if isinstance(value, list) else value for name, value in values.items()}
        made.add(step, {name: dict.fromkeys(NAMES, cell) for name, cell in cells.items()})
    return made


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def mesh(axes):
    return axes.collections[0]


def footnote(figure):
    return figure._supxlabel.get_text()


def panels(figure, rows=1):
    return figure.axes[: rows * len(PANELS)]  # the colour bars come after


def test_layers_are_down_and_steps_across_one_panel_a_statistic():
    figure = draw({"AdaBelief": history({"net.a": [1.0, 2.0, 3.0], "net.b": 4.0})})
    assert [ax.texts[0].get_text() for ax in panels(figure)] == list(PANELS)
    assert labels(figure.axes[0]) == ["a", "b"]
    assert "net." in [text.get_text() for text in figure.axes[0].texts]
    assert mesh(figure.axes[0]).get_array().tolist() == [[1, 2, 3], [4, 4, 4]]
    assert figure.axes[0].yaxis_inverted()
    assert figure.axes[0].get_xlim() == (-1, 29)
    assert footnote(figure) == "step"


def test_a_single_layer_at_a_single_step_is_drawn():
    figure = draw({"AdaBelief": history({"weight": 0.0}, steps=[0])}, ["s_t", "update_to_weight"])
    assert labels(figure.axes[0]) == ["weight"]
    assert render(figure).ndim == 3


def test_colours_go_by_decades_where_values_span_them():
    wide = draw({"AdaBelief": history({"a": 1e-6, "b": 1e-2})})
    near = draw({"AdaBelief": history({"a": 1.0, "b": 2.0})})
    logarithmic = [isinstance(mesh(ax).norm, LogNorm) for ax in panels(wide)]
    open_ended = {name: BY_NAME[name].color_range == (None, None) for name in PANELS}
    assert dict(zip(PANELS, logarithmic, strict=True)) == open_ended
    assert [name for name, is_open in open_ended.items() if is_open] == [
        "s_t",
        "effective_step_size",
        "update_to_weight",
    ]
    assert not any(isinstance(mesh(ax).norm, LogNorm) for ax in panels(near))


@pytest.mark.parametrize("largest", [0.6, 1.6, 1e2, 1e6], ids=str)
def test_the_numbers_below_a_logarithmic_scale_do_not_overlap(largest):
    figure = draw({"AdaBelief": history({"a": 1.7e-2, "b": largest})})
    render(figure)
    bars = [ax for ax in figure.axes[len(PANELS) :] if ax.get_xscale() == "log"]
    for bar in bars:
        ticks = [*bar.xaxis.get_major_ticks(), *bar.xaxis.get_minor_ticks()]
        low, high = bar.get_xlim()
        texts = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
        boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.x0)
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    assert len(bars) >= 3


def test_the_share_of_eps_has_one_scale_in_every_picture():
    figure = draw({"AdaBelief": history({"a": 1e-6})}, ["eps_share"])
    assert (mesh(figure.axes[0]).norm.vmin, mesh(figure.axes[0]).norm.vmax) == (0, 1)
    assert figure.axes[0].get_title(loc="left").endswith("up to 1e-06")


def test_what_has_no_colour_is_grey_and_said_so():
    values = {"a": [float("inf"), 1e-6, 1.0], "b": [0.0, 1.0, 1.0]}
    figure = draw({"AdaBelief": history(values)}, ["s_t"])
    assert mesh(figure.axes[0]).get_array().mask.tolist() == [[True, False, False], [True, False, False]]
    assert "grey" in footnote(figure)


def test_up_to_forty_layers_have_a_row_each():
    names = [f"layers.{i}.weight" for i in range(MAX_ROWS)]
    assert group_layers(names) == {name: [name] for name in names}


def test_more_layers_are_grouped_by_module_and_their_row_is_the_median():
    names = [f"layers.{i}.{module}.{kind}" for i in range(12) for module in ("a", "b") for kind in ("weight", "bias")]
    groups = group_layers([*names, "head.weight"])
    assert list(groups)[:2] == ["layers.0.a (2)", "layers.0.b (2)"]
    assert list(groups)[-1] == "head.weight"
    assert sum(groups.values(), []) == [*names, "head.weight"]

    values = {name: float(i) for i, name in enumerate([*names, "head.weight"])}
    figure = draw({"AdaBelief": history(values)}, ["s_t"])
    assert mesh(figure.axes[0]).get_array()[:2, 0].tolist() == [0.5, 2.5]
    assert "(n): the median of n layers" in footnote(figure)


def test_too_many_outermost_modules_are_grouped_with_their_neighbours():
    names = [f"{i}.weight" for i in range(100)]
    groups = group_layers(names)
    assert len(groups) <= MAX_ROWS
    assert list(groups)[0] == "0.weight … 2.weight (3)"
    assert sum(groups.values(), []) == names


def test_optimizers_are_below_each_other_with_the_same_colours():
    both = {"AdaBelief": history({"a": 1.0}), "AdaBelief-1": history({"b": 5.0, "c": 9.0}, steps=(1, 3))}
    figure = draw(both)
    first, second = figure.axes[0], figure.axes[len(PANELS)]
    assert (labels(first), labels(second)) == (["a"], ["b", "c"])
    assert mesh(first).norm is mesh(second).norm
    assert "AdaBelief-1" in [text.get_text() for text in second.texts]


def test_long_names_are_shortened_in_the_middle():
    figure = draw({"AdaBelief": history({"x" * 30 + "y" * 30: 1.0})}, ["s_t"])
    (label,) = labels(figure.axes[0])
    assert len(label) <= 36 and label.startswith("xxx") and label.endswith("yyy")


def test_the_png_is_what_was_rendered(tmp_path):
    pixels = render(draw({"AdaBelief": history({"a": 1.0})}, ["s_t"]))
    save_png(pixels, tmp_path / "belief.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "belief.png")), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["belief.png"]


def test_pyplot_is_left_alone():
    backend = matplotlib.get_backend()
    render(draw({"AdaBelief": history({"a": 1.0})}, ["s_t"]))
    assert matplotlib.get_backend() == backend
    assert not matplotlib.pyplot.get_fignums()
