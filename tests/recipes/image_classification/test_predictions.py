"""The table of a classifier's predictions."""

import csv
import os

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import Dataset

from lightning_adabelief.recipes.image_classification import (
    DigitsDataModule,
    ImageClassifier,
    PredictionsTable,
    SmallCNN,
)
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
from lightning_adabelief.recipes.image_classification.image_file import read_rgb
from lightning_adabelief.recipes.image_classification.image_sets import ReadableImages
from lightning_adabelief.recipes.image_classification.training_images import TrainingImages

NAMES = ["cat", "file", "Hund, großer"]


class Files(Dataset):
    """Images of 8x8 pixels in files."""

    def __init__(self, files):
        self.files = list(map(str, files))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return torch.from_numpy(np.array(read_rgb(self.files[index]))).permute(2, 0, 1)


class Photos(ImageDataModule):
    def __init__(self, files):
        super().__init__(batch_size=2, num_workers=0)
        self.images = ReadableImages(Files(files), (3, 8, 8))

    def predict_dataloader(self):
        return self._make_loader(self.images)


class Digits(DigitsDataModule):
    def predict_dataloader(self):
        return self._make_loader(torch.utils.data.Subset(self.test_set, range(100)))


@pytest.fixture
def files(tmp_path):
    """Five images, of the names 0.png to 4.png."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def oddly_named(tmp_path, files):
    """Two images with bytes in their names that are no UTF-8, the second one damaged."""
    paths = [os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/caf\xe9.png", b"/\xff, of cats.png")]
    for path, file in zip(paths, files, strict=False):
        file.rename(path)
    os.truncate(paths[1], 60)
    return paths


def predict(data, folder, names=NAMES, channels=3, classes=3, kind=ImageClassifier, **options):
    """Predict with a small random classifier, and return it."""
    torch.manual_seed(0)
    module = kind(SmallCNN(channels, classes, width=4))
    module.training_images = TrainingImages(class_names=names)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False} | options
    trainer = pl.Trainer(default_root_dir=folder, callbacks=[PredictionsTable()], **options)
    trainer.predict(module, data, return_predictions=False)
    return module.eval()


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_row(row, probabilities, names):
    assert row["class"] == names[probabilities.argmax()]
    assert float(row["probability"]) == pytest.approx(probabilities.max().item(), abs=1e-6)
    written = [float(row[f"probability_{name}"]) for name in names]
    assert written == pytest.approx(probabilities.tolist(), abs=1e-6)


def test_a_row_has_the_file_its_class_and_the_probability_of_each_class(files, tmp_path, capsys):
    module = predict(Photos(files), tmp_path)
    rows = read(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["file", "class", "probability", *(f"probability_{name}" for name in NAMES)]
    assert [row["file"] for row in rows] == list(map(str, files))
    images = torch.stack([Files(files)[number] for number in range(5)]) / 255
    for row, probabilities in zip(rows, module.predict_step(images, 0), strict=True):
        assert_row(row, probabilities, NAMES)
    assert f"Predictions: {tmp_path / 'predictions.csv'} (5 images)" in capsys.readouterr().out


def test_probabilities_that_are_nan_are_of_no_class(files, tmp_path, capsys):
    class Overflowing(ImageClassifier):
        def forward(self, images):
            logits = super().forward(images)
            return torch.where(torch.arange(len(logits))[:, None] == 0, float("nan"), logits)

    files[4].write_text("no image")
    predict(Photos(files[1:]), tmp_path, kind=Overflowing)
    rows = read(tmp_path / "predictions.csv")
    assert [row["class"] in NAMES for row in rows] == [False, True, False, False]
    assert [row["probability"] == "nan" for row in rows] == [True, False, True, False]
    out = capsys.readouterr().out
    assert "The network gives NaN for 2 of the images" in out and "1 of the images can't be read" in out


def test_a_prediction_that_is_stopped_says_where_its_rows_are(files, tmp_path, capsys):
    class Stopped(ImageClassifier):
        def predict_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise KeyboardInterrupt
            return super().predict_step(batch, batch_idx)

    with pytest.raises(SystemExit):
        predict(Photos(files), tmp_path, kind=Stopped)
    part = tmp_path / "predictions.csv.0.part"
    assert f"The rows of 4 images are in {part}" in capsys.readouterr().out
    assert [line.split(",")[:2] for line in part.read_text().splitlines()] == [
        [str(i), str(files[i])] for i in range(4)
    ]


@pytest.mark.skipif(os.sep != "/", reason="other systems' names have characters, not bytes")
def test_bytes_of_a_name_that_are_no_utf_8_are_written_out(oddly_named, tmp_path, capsys):
    predict(Photos(oddly_named), tmp_path)
    rows = read(tmp_path / "predictions.csv")
    assert [row["file"] for row in rows] == [rf"{tmp_path}/caf\xe9.png", rf"{tmp_path}/\xff, of cats.png"]
    assert rows[0]["class"] in NAMES and not rows[1]["class"]
    assert r"\xff, of cats.png can't be read as an image: " in capsys.readouterr().out


def test_an_image_that_cannot_be_read_costs_its_own_row_alone(files, tmp_path, capsys):
    predict(Photos(files), tmp_path)
    whole = read(tmp_path / "predictions.csv")
    capsys.readouterr()
    files[1].write_bytes(files[1].read_bytes()[:60])
    files[4].write_text("no image")
    predict(Photos(files), tmp_path)
    rows = read(tmp_path / "predictions_1.csv")
    assert [rows[number] for number in (0, 2, 3)] == [whole[number] for number in (0, 2, 3)]
    for number in (1, 4):
        assert set(rows[number].values()) == {str(files[number]), ""}
    out = capsys.readouterr().out
    assert "2 of the images can't be read" in out
    assert all(f"{files[number]} can't be read as an image: " in out for number in (1, 4))


def test_a_table_is_never_overwritten_nor_one_that_is_being_written(files, tmp_path):
    (tmp_path / "predictions.csv").write_text("of another time")
    (tmp_path / "predictions_1.csv.0.part").write_text("of a run that was stopped")
    predict(Photos(files), tmp_path)
    assert len(read(tmp_path / "predictions_2.csv")) == 5
    assert (tmp_path / "predictions.csv").read_text() == "of another time"
    assert (tmp_path / "predictions_1.csv.0.part").read_text() == "of a run that was stopped"
    assert len(list(tmp_path.glob("*.part"))) == 1


@pytest.mark.parametrize(
    "columns", [(torch.rand(4, 3, 8, 8),), (torch.rand(4, 3, 8, 8), torch.tensor([True, False, True, False]))]
)
def test_data_of_ones_own_need_no_labels_and_may_have_some_of_any_kind(columns, tmp_path):
    predict(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*columns)), tmp_path)
    assert {row["class"] for row in read(tmp_path / "predictions.csv")} <= set(NAMES)


def test_images_without_files_and_classes_without_names_have_numbers(tmp_path):
    data = Digits()
    module = predict(data, tmp_path, None, channels=1, classes=10)
    rows = read(tmp_path / "predictions.csv")
    assert [row["image"] for row in rows] == [str(number) for number in range(100)]
    images = torch.stack([image for image, _ in data.test_set])
    for row, probabilities in zip(rows, module.predict_step(images[:100], 0), strict=True):
        assert_row(row, probabilities, [str(label) for label in range(10)])


@pytest.fixture
def one_thread():
    """Run torch in one thread: a fork of several waits for them for ever."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_rows_of_several_processes_are_in_the_order_of_the_images(files, tmp_path, one_thread):
    predict(Photos(files), tmp_path)
    predict(Photos(files), tmp_path, strategy="ddp_fork", devices=2)
    one, two = (read(tmp_path / name) for name in ("predictions.csv", "predictions_1.csv"))
    assert [row["file"] for row in two] == list(map(str, files))
    for row, other in zip(one, two, strict=True):
        assert row["class"] == other["class"]
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=2e-6)
    assert not list(tmp_path.glob("*.part"))
