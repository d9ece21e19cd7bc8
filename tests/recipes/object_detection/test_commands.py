"""A detector trained on one's own files by command, and its predictions."""

import csv

import pytest

from lightning_adabelief.cli.main import main
from tests.recipes.box_files import write_coco, write_image, write_voc

OBJECTS = [("helmet", (2, 3, 20, 30)), ("boot", (25, 5, 30, 30))]
SHORT = [
    "--model.network=lightning_adabelief.recipes.object_detection.SmallFasterRCNN",
    "--model.network.width=8",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.num_workers=0",
]


@pytest.mark.filterwarnings("ignore:AdaBelief, step")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("form", ["VOC", "COCO"])
def test_a_recipe_trains_on_ones_own_files_and_predicts_a_folder(form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = list(SHORT)
    if form == "VOC":
        root = write_voc(tmp_path / "mine", {"a": OBJECTS, "b": OBJECTS, "c": []}, {"train": ["a", "c"], "val": ["b"]})
    else:
        root = tmp_path / "mine.json"
        write_coco(root, {"a.png": OBJECTS, "b.png": OBJECTS, "c.png": []}, {1: "boot", 5: "helmet"})
        words.append("--data.val_share=0.3")
    assert main(["fit", "--config=voc-fasterrcnn", f"--data.root={root}", *words]) == 0
    out = capsys.readouterr().out
    assert "test/map_50" in out
    assert (tmp_path / "logs/voc-fasterrcnn/version_0/pictures/val.png").is_file()

    write_image(tmp_path / "photos/new.jpg")
    checkpoint = "--ckpt_path=logs/voc-fasterrcnn/version_0/checkpoints/last.ckpt"
    predict = ["predict", "--config=voc-fasterrcnn", "--data.predict_images=photos", "--data.root=gone", checkpoint]
    assert main([*predict, *words]) == 0
    assert "detections.csv" in capsys.readouterr().out
    folder = tmp_path / "logs/voc-fasterrcnn/version_1"
    with (folder / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= {"boot", "helmet"} and {row["file"] for row in rows} <= {"photos/new.jpg"}
    assert [path.name for path in (folder / "predictions").iterdir()] == ["00000-new.png"]
