"""TensorBoard's custom-scalars page, as its own plugin reads it."""

import re

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from lightning_adabelief import BeliefMonitor
from lightning_adabelief.beliefs.statistic import STATISTICS
from tests.callbacks.belief_monitor.conftest import Net
from tests.callbacks.belief_monitor.test_monitor import belief


@pytest.fixture
def charts(tensorboard):
    """From a category to its charts' titles and the tags that they show."""

    def read(accumulator=None):
        accumulator = accumulator or tensorboard()[1]
        *_, last = accumulator.Tensors("custom_scalars__config__")
        layout = layout_pb2.Layout.FromString(last.tensor_proto.string_val[0])
        tags = accumulator.Tags()["scalars"]
        return {
            category.title: {
                chart.title: [tag for tag in tags if any(re.match(regex, tag) for regex in chart.multiline.tag)]
                for chart in category.chart
            }
            for category in layout.category
        }

    return read


def test_each_statistic_has_a_chart_with_its_layers_together(fit, tensorboard, charts):
    fit(Net(), BeliefMonitor(top_k=2), gradient_clip_val=0.1)
    scalars, _ = tensorboard()
    shown = charts()
    assert list(shown) == ["belief", "steps", "optimizer"]
    assert {"s_t", "effective_step_size", "step_gain_over_adam"} <= shown["belief"].keys()
    assert {"update_to_weight", "grad_norm, unclipped_grad_norm", "update_norm"} <= shown["steps"].keys()
    charted = sorted(name for titles in shown.values() for title in titles for name in title.split(", "))
    assert charted == sorted(row.name for row in STATISTICS)
    for titles in shown.values():
        for title, tags in titles.items():
            names = title.split(", ")
            assert sorted(tags) == sorted(tag for tag in belief(scalars) if tag.split("/")[1] in names) != []


def test_only_statistics_that_are_logged_have_a_chart(fit, charts):
    fit(Net(), BeliefMonitor(statistics=["s_t", "warmup"]), BeliefMonitor(statistics=["grad_norm"], include="*"))
    assert {category: list(titles) for category, titles in charts().items()} == {
        "belief": ["s_t"],
        "steps": ["grad_norm"],
        "optimizer": ["warmup"],
    }


def test_a_loggers_prefix_does_not_hide_the_layers(fit, charts, tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb", prefix="mine")
    fit(Net(), BeliefMonitor(statistics="s_t", include="head.bias"), logger=logger)
    accumulator = EventAccumulator(logger.log_dir).Reload()
    assert sorted(charts(accumulator)["belief"]["s_t"]) == ["mine-belief/s_t/head.bias", "mine-belief/s_t/model"]


def test_a_layout_written_later_takes_its_place(fit, charts):
    class Own(Net):
        def on_train_start(self):
            writer = self.loggers[0].experiment
            writer.add_custom_scalars({"own": {"loss": ["Multiline", ["train/loss"]]}})

    fit(Own(), BeliefMonitor())
    assert charts() == {"own": {"loss": ["train/loss"]}}


def test_it_can_be_left_out(fit, tensorboard):
    fit(Net(), BeliefMonitor(custom_scalars=False))
    assert not tensorboard()[1].Tags()["tensors"]
