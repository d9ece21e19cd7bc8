"""Boxes on pictures, and the table of what is predicted."""

import csv

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image, ImageColor

from lightning_adabelief.recipes.object_detection import Pictures
from lightning_adabelief.recipes.object_detection.drawing import MISSED, RIGHT, WRONG, draw_detections, match_boxes
from tests.recipes.object_detection.small_detector import make_detector, make_scenes, make_trainer

BOXES = torch.tensor([[10.0, 10, 30, 30], [50, 50, 80, 80]])


def detect(boxes, labels, scores):
    return {"boxes": boxes, "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def where(picture, colour):
    return (picture == torch.tensor(ImageColor.getrgb(colour)).view(3, 1, 1)).all(dim=0)


def has(picture, colour):
    return where(picture, colour).any()


def test_a_found_object_a_mistake_and_a_missed_object_have_colours_of_their_own():
    image = torch.zeros(3, 96, 96)
    target = {"boxes": BOXES, "labels": torch.tensor([1, 2])}
    right = draw_detections(image, detect(BOXES, [1, 2], [0.9, 0.8]), ["cat", "dog"], target)
    assert has(right, RIGHT) and not has(right, WRONG) and not has(right, MISSED)
    wrong = draw_detections(image, detect(BOXES, [2, 1], [0.9, 0.8]), ["cat", "dog"], target)
    assert has(wrong, WRONG) and has(wrong, MISSED) and not has(wrong, RIGHT)
    nothing = draw_detections(image, detect(BOXES, [1, 2], [0.4, 0.3]), ["cat", "dog"], target)
    assert has(nothing, MISSED) and not has(nothing, RIGHT) and not has(nothing, WRONG)
    predicted = draw_detections(image, detect(BOXES, [1, 2], [0.9, 0.3]))
    assert has(predicted, RIGHT) and not has(predicted, MISSED)


def test_a_box_is_drawn_around_its_object_on_the_enlarged_picture():
    picture = draw_detections(torch.zeros(3, 48, 96), detect(BOXES[:1], [1], [1.0]), ["cat"])
    assert picture.shape == (3, 192, 384)
    blue = where(picture, RIGHT)
    assert blue[60, 40] and blue[60, 120] and not blue[60, 80]


@pytest.mark.parametrize("box", [[0, 0, 96, 96], [90, 90, 96, 96], [0, 0, 4, 4]])
def test_a_label_stays_in_the_picture(box):
    boxes = torch.tensor([box], dtype=torch.float32)
    picture = draw_detections(torch.zeros(3, 96, 96), detect(boxes, [1], [1.0]), ["a rather long name"])
    blue = where(picture, RIGHT)
    assert blue.sum() > 100 * 12, "the label's ground"


def test_of_two_boxes_on_an_object_only_the_better_finds_it():
    found, is_right = match_boxes(BOXES[[0, 0, 1]], torch.tensor([1, 1, 1]), BOXES, torch.tensor([1, 2]))
    assert found.tolist() == [True, False] and is_right.tolist() == [True, False, False]
    nothing, none_right = match_boxes(BOXES, torch.tensor([1, 1]), torch.empty(0, 4), torch.empty(0))
    assert not len(nothing) and none_right.tolist() == [False, False]


def test_pictures_go_to_tensorboard_and_beside_the_logs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[Pictures(count=2)], log_every_n_steps=1)
    module = make_detector()
    trainer.fit(module, make_scenes())
    trainer.test(module, make_scenes(), verbose=False)
    folder = tmp_path / "lightning_logs/version_0/pictures"
    assert {path.name for path in folder.iterdir()} == {"val.png", "val-0001.png", "test.png"}
    with Image.open(folder / "val.png") as picture:
        assert picture.size == (2 * 384 + 3 * 4, 384 + 2 * 4)
    assert {"val/detections", "test/detections"} <= set(EventAccumulator(logger.log_dir).Reload().Tags()["images"])


def test_pictures_go_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True)
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[Pictures(count=2)], log_every_n_steps=1)
    trainer.fit(make_detector(), make_scenes())
    logger.experiment.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/val/detections_*.png"))


def test_predict_leaves_a_table_of_boxes_and_a_picture_of_each_image(tmp_path, capsys):
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[Pictures()])
    batches = trainer.predict(make_detector(), make_scenes())
    folder = tmp_path / "lightning_logs/version_0"
    with (folder / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(one["file"], box) for batch in batches for one in batch for box in one["boxes"].tolist()]
    assert len(rows) == len(found) > 0
    assert list(rows[0]) == ["file", "label", "score", "left", "top", "right", "bottom"]
    for row, (file, box) in zip(rows, found, strict=True):
        assert row["file"] == file and row["label"] in "0123456789" and 0 <= float(row["score"]) <= 1
        assert [float(row[side]) for side in ("left", "top", "right", "bottom")] == pytest.approx(box, abs=0.06)
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == [
        f"0000{number}-test-0000{number}.png" for number in range(3)
    ]
    assert "detections.csv" in capsys.readouterr().out


def test_without_a_logger_a_second_prediction_leaves_the_first_as_it_was(tmp_path):
    for _ in range(2):
        trainer = make_trainer(tmp_path, logger=False, callbacks=[Pictures()])
        trainer.predict(make_detector(), make_scenes())
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.csv")} == {
        "predictions_0/detections.csv",
        "predictions_1/detections.csv",
    }


@pytest.mark.parametrize("options", [{"count": 0}, {"min_score": 1.5}])
def test_a_value_out_of_range_is_an_error(options):
    with pytest.raises(ValueError, match="Invalid"):
        Pictures(**options)
