"""belief.png, belief.csv and the images, as a run leaves them."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.callbacks.belief_monitor.outputs import record
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES
from tests.callbacks.belief_monitor.conftest import Net
from tests.callbacks.belief_monitor.test_monitor import key_of_the_monitor

LAYERS = ["encoder.weight", "encoder.bias", "head.weight", "head.bias"]


def read(trainer, name="belief"):
    with open(f"{trainer.log_dir}/{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def steps(rows):
    return sorted({int(row["step"]) for row in rows})


def test_the_table_has_every_layer_at_every_step_logged(fit, tensorboard):
    trainer = fit(Net(), BeliefMonitor())
    rows = read(trainer)
    assert list(rows[0]) == ["step", "optimizer", "layer", *NAMES]
    assert [(row["step"], row["layer"]) for row in rows] == [(step, layer) for step in "49" for layer in LAYERS]
    assert {row["optimizer"] for row in rows} == {"AdaBelief"}
    scalars, _ = tensorboard()
    for row in rows:
        for name in NAMES:
            logged = scalars[f"belief/{name}/{row['layer']}"][int(row["step"])]
            assert float(row[name]) == pytest.approx(logged, rel=1e-5)


def test_the_picture_is_in_tensorboard_and_beside_the_logs(fit, tensorboard):
    trainer = fit(Net(), BeliefMonitor())
    _, accumulator = tensorboard()
    (image,) = accumulator.Images("belief/heat_map")
    assert image.step == 9
    saved = np.asarray(Image.open(f"{trainer.log_dir}/belief.png"))
    assert saved.shape[:2] == (image.height, image.width)
    assert len(np.unique(saved.reshape(-1, 3), axis=0)) > 50


def test_layers_are_in_the_networks_order_and_only_those_included(fit):
    class Split(Net):
        def configure_optimizers(self):
            weights = [self.head.weight, self.encoder.weight]
            return AdaBelief([{"params": weights}, {"params": [self.head.bias, self.encoder.bias]}])

    rows = read(fit(Split(), BeliefMonitor(include=["*.weight", "head.*"], statistics=["s_t", "eps_share"])))
    assert [row["layer"] for row in rows[:3]] == ["encoder.weight", "head.weight", "head.bias"]
    assert list(rows[0]) == ["step", "optimizer", "layer", "s_t", "eps_share"]


def test_a_resumed_run_continues_the_table_without_duplicates(fit, tmp_path):
    trainer = fit(Net(), BeliefMonitor())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert saved["callbacks"][key_of_the_monitor(trainer)]["record"]["AdaBelief"]["steps"] == [4, 9]

    resumed = read(fit(Net(), BeliefMonitor(), max_epochs=2, ckpt_path=tmp_path / "half.ckpt"))
    assert [(row["step"], row["layer"]) for row in resumed[: len(LAYERS) * 2]] == [
        (row["step"], row["layer"]) for row in read(trainer)
    ]
    assert steps(resumed) == [4, 9, 14, 19]
    assert len(resumed) == 4 * len(LAYERS)


def test_a_second_fit_begins_anew(fit):
    monitor = BeliefMonitor()
    fit(Net(), monitor)
    assert steps(read(fit(Net(), monitor))) == [4, 9]


def test_several_monitors_have_their_own_files(fit, tensorboard):
    trainer = fit(Net(), BeliefMonitor(2, "encoder.*"), BeliefMonitor(3, "head.*"))
    assert {row["layer"] for row in read(trainer)} == {"encoder.weight", "encoder.bias"}
    assert {row["layer"] for row in read(trainer, "belief-1")} == {"head.weight", "head.bias"}
    assert set(tensorboard()[1].Tags()["images"]) == {"belief/heat_map", "belief/heat_map-1"}


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_breaks_off_leaves_what_there_is(fit, tmp_path, exception):
    class Breaks(Net):
        def on_train_batch_end(self, *args):
            if args[-1] == 7:
                raise exception

    with pytest.raises(SystemExit if exception is KeyboardInterrupt else exception):
        fit(Breaks(), BeliefMonitor())
    (path,) = (tmp_path / "tb").glob("*/belief.csv")
    with open(path, newline="") as file:
        assert steps(csv.DictReader(file)) == [4]
    assert path.with_name("belief.png").exists()


def test_it_is_drawn_at_the_ends_of_epochs_only_as_far_as_it_is_cheap(fit, tensorboard, monkeypatch):
    images = lambda: [image.step for image in tensorboard()[1].Images("belief/heat_map")]  # noqa: E731
    fit(Net(), BeliefMonitor(), max_epochs=3)
    assert images() == [34]  # no second has passed: the end alone
    monkeypatch.setattr(record, "MAX_TIME_FRACTION", 1e9)
    fit(Net(), BeliefMonitor(), max_epochs=3)
    assert images() == [9, 19, 34]  # the last epoch's is the end's too


def test_nothing_is_written_where_nothing_is_logged_to_disk(fit, tmp_path, monkeypatch):
    class InMemory(Logger):
        name = version = "memory"

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, *args, **kwargs):
            pass

    monkeypatch.chdir(tmp_path)
    fit(Net(), BeliefMonitor(), logger=InMemory())
    fit(Net(), BeliefMonitor(), fast_dev_run=True, logger=True)
    assert not list(tmp_path.rglob("belief*"))


def test_the_first_logger_with_a_folder_has_the_files(fit, tmp_path):
    fit(Net(), BeliefMonitor(), logger=[CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "tb")])
    assert [path.parent.parent.name for path in tmp_path.rglob("belief.csv")] == ["csv"]


def test_it_can_be_left_out(fit, tmp_path, tensorboard):
    fit(Net(), BeliefMonitor(heat_map=False))
    assert not list(tmp_path.rglob("belief.*"))
    assert not tensorboard()[1].Tags()["images"]


def test_without_a_statistic_of_layers_there_is_nothing_to_write(fit, tmp_path):
    fit(Net(), BeliefMonitor(statistics="warmup"))
    assert not list(tmp_path.rglob("belief.*"))


def test_statistics_that_no_panel_shows_are_in_the_table_alone(fit, tmp_path):
    fit(Net(), BeliefMonitor(statistics="grad_norm"))
    assert [path.name for path in tmp_path.rglob("belief.*")] == ["belief.csv"]
