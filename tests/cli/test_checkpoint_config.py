"""A command that names a checkpoint alone."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from lightning_adabelief.cli.main import main
from tests.recipes.image_files import write_image_folder
from tests.recipes.test_recipe_module import RECIPES, SHORT

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run of digits-cnn, which named its folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert (
            main(["fit", "--config=digits-cnn", *SHORT, *RECIPES["digits-cnn"][1], "--trainer.logger.version=mine"])
            == 0
        )
    return folder / "logs/digits-cnn/mine"


@pytest.fixture
def checkpoint(run, tmp_path, monkeypatch):
    """The checkpoint in a copy of the run's folder, and this folder around it."""
    shutil.copytree(run, tmp_path / "logs/digits-cnn/mine")
    monkeypatch.chdir(tmp_path)
    return next(Path("logs").glob("**/*.ckpt"))


def test_the_config_of_its_run_is_taken_and_the_logs_go_elsewhere(checkpoint, capsys):
    assert main(["predict", f"--ckpt_path={checkpoint}"]) == 0
    out, err = capsys.readouterr()
    assert "Without --config, that of the checkpoint's run is taken: " in err and "mine/config.yaml" in err
    assert "(360 images)" in out
    (table,) = Path("logs/digits-cnn").glob("version_*/predictions.csv")
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 360


def test_options_that_are_typed_go_before_that_config(checkpoint, capsys):
    assert main(["predict", f"--ckpt_path={checkpoint}", "--model.network.width=5"]) == 1
    assert "is of another network than the config's" in capsys.readouterr().err


def test_a_training_goes_on(checkpoint):
    assert main(["fit", f"--ckpt_path={checkpoint}", "--trainer.max_epochs=2"]) == 0
    saved = [torch.load(path, weights_only=True) for path in Path("logs").glob("**/*.ckpt")]
    assert sorted(content["epoch"] for content in saved) == [0, 1]


def test_without_a_config_beside_it_the_checkpoint_tells_the_model(checkpoint, capsys):
    alone = checkpoint.rename("alone.ckpt")
    shutil.rmtree("logs")
    data = "--data=lightning_adabelief.recipes.image_classification.DigitsDataModule"
    for _ in range(2):
        assert main(["predict", f"--ckpt_path={alone}", data, "--trainer.logger=false"]) == 0
    assert "is taken: the model that is in alone.ckpt" in capsys.readouterr().err
    assert Path("predictions.csv").read_bytes() == Path("predictions_1.csv").read_bytes()


def test_a_checkpoint_that_does_not_tell_its_model_is_an_error_that_asks_for_a_config(checkpoint, capsys):
    content = torch.load(checkpoint, weights_only=True)
    del content["hyper_parameters"]
    torch.save(content, "old.ckpt")
    assert main(["predict", "--ckpt_path=old.ckpt"]) == 2
    assert "old.ckpt does not tell its networks, and has no config.yaml beside it" in capsys.readouterr().err


def test_a_checkpoint_alone_imports_no_module_of_its_choice(checkpoint, capsys):
    Path("gadget.py").write_text("raise SystemExit('imported')")
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["network"] = {"class_path": "gadget.Network"}
    torch.save(content, "other.ckpt")
    assert main(["predict", "--ckpt_path=other.ckpt"]) == 2
    assert "other.ckpt names gadget.Network, which is imported only if a config says so" in capsys.readouterr().err


def test_photos_are_predicted_by_a_checkpoint_alone_without_data_or_pretrained_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_image_folder("photos", classes=2)
    torch.save(mobilenet_v3_small().state_dict(), "photos/weights.pth")
    package = "lightning_adabelief.recipes.image_classification"
    data = [f"--data={package}.ImageFolderDataModule", "--data.root=photos", "--data.size=32", "--data.num_workers=0"]
    network = [f"--model.network={package}.PretrainedNetwork", "--model.network.name=mobilenet_v3_small"]
    words = [*data, *network, "--model.network.weights=photos/weights.pth"]
    assert main(["fit", "--config=digits-cnn", *SHORT, *words]) == 0
    (checkpoint,) = Path("logs").glob("**/*.ckpt")
    (tmp_path / "elsewhere").mkdir()
    checkpoint.rename("elsewhere/best.ckpt")
    Path("photos/val").rename("elsewhere/new")
    shutil.rmtree("photos")

    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("new/broken.jpg").write_text("no image")
    predict = ["predict", "--ckpt_path=best.ckpt", "--data.predict=new", "--data.num_workers=0"]
    assert main([*predict, "--trainer.logger=false"]) == 0
    assert "new/broken.jpg can't be read as an image" in capsys.readouterr().out
    with open("predictions.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 5 and rows["new/broken.jpg"]["class"] == ""
    assert {row["class"] for row in rows.values()} <= {"n00000000", "n00000001", ""}
