"""The history of a run's layers: bounded, in order, resumed."""

import math

import pytest
import torch

from lightning_adabelief.callbacks.belief_monitor.outputs.history import MAX_COLUMNS, NAMES, LayerHistory


def measured(*names, value=1.0):
    return {name: dict.fromkeys(NAMES, value) for name in names}


def filled(values, layer="a"):
    history = LayerHistory()
    for step, value in enumerate(values):
        history.add(step, measured(layer, value=value))
    return history


def column(history):
    return history.values[0, :, 0].tolist()


def test_it_holds_what_was_measured():
    history = filled([3.0, 5.0])
    assert list(history.rows()) == [
        (0, "a", dict.fromkeys(NAMES, 3.0)),
        (1, "a", dict.fromkeys(NAMES, 5.0)),
    ]


@pytest.mark.parametrize("count", [MAX_COLUMNS, MAX_COLUMNS + 1, 1000, 5000])
def test_columns_are_at_most_so_many_and_each_is_the_mean_of_its_measurements(count):
    history = filled(range(count))
    assert len(history.steps) <= MAX_COLUMNS
    assert history.steps[-1] == count - 1
    begins = [-1, *history.steps[:-1]]
    means = [(begin + 1 + end) / 2 for begin, end in zip(begins, history.steps, strict=True)]
    assert column(history) == pytest.approx(means)
    widths = {end - begin for begin, end in zip(begins[:-1], history.steps[:-1], strict=True)}
    assert len(widths) == 1  # all but the one that is being filled


def test_layers_stand_in_the_networks_order_whenever_they_come():
    history = LayerHistory()
    history.add(0, measured("head"))
    history.add(1, measured("stem", "body", "head"))
    history.add(2, measured("body", "tail"))
    assert history.layers == ["stem", "body", "tail", "head"]
    assert [(step, layer) for step, layer, _ in history.rows()] == [
        (0, "head"),
        *((1, name) for name in ("stem", "body", "head")),
        *((2, name) for name in ("body", "tail")),
    ]


def test_a_mean_leaves_out_what_was_not_measured_and_keeps_an_infinity():
    history = filled([1.0] * (MAX_COLUMNS - 1))
    history.add(MAX_COLUMNS - 1, measured("b", value=7.0))
    history.add(MAX_COLUMNS, measured("a", "b", value=math.inf))
    rows = dict(zip(history.layers, history.values[..., 0].tolist(), strict=True))
    assert rows["a"][-2:] == [1.0, math.inf]
    assert rows["b"][-2:] == [7.0, math.inf]


@pytest.mark.parametrize("count", [1, 10, MAX_COLUMNS, 777])
def test_a_resumed_history_goes_on_as_if_it_had_not_stopped(count, tmp_path):
    torch.save(filled(range(count)).state_dict(), tmp_path / "state.pt")
    resumed = LayerHistory()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(count, 1500):
        resumed.add(step, measured("a", value=step))
    straight = filled(range(1500))
    assert resumed.steps == straight.steps
    assert column(resumed) == column(straight)


def test_its_state_does_not_change_with_it():
    history = filled([1.0])
    state = history.state_dict()
    history.add(1, measured("a", "b"))
    assert state["layers"] == ["a"] and state["steps"] == [0]
    assert state["values"]["s_t"].shape == (1, 1)
