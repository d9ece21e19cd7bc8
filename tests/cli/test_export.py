"""``adabelief export``: a trained network, run without its module and the data."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_adabelief.cli import export
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.gan import GAN
from lightning_adabelief.recipes.image_classification import ImageClassifier
from tests.recipes.test_recipe_module import RECIPES, SHORT


def fit(recipe, folder, *words):
    """Run a recipe for a step, and return its checkpoint, moved away from its config."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", recipe, *SHORT, *RECIPES[recipe][1], *words]) == 0
    (path,) = folder.glob("logs/**/*.ckpt")
    return path.rename(folder / f"{recipe}.ckpt")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return fit("digits-cnn", tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    words = ["--model.generator.num_classes=10", "--model.critic.num_classes=10", "--model.ema_decay=0.5"]
    return fit("digits-sngan", tmp_path_factory.mktemp("gan"), *words)


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def compute(classifier, images):
    module = ImageClassifier.load_from_checkpoint(classifier).eval()
    with torch.no_grad():
        return module(images).softmax(-1)


@pytest.mark.skipif(torch.__version__ < export.OLDEST_TORCH_OF_ONNX, reason="this torch is refused")
def test_onnx_takes_any_number_of_images_and_tells_its_classes_and_size(classifier, images, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", "--ckpt_path", str(classifier), str(out)]) == 0
    assert "differ from the module's own by at most" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out)
    for size in (1, 5):
        (probabilities,) = session.run(["probabilities"], {"images": images[:size].numpy()})
        np.testing.assert_allclose(probabilities, compute(classifier, images[:size]), atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["input"] == "images, float32 (N, 1, 8, 8) in [0, 1]"
    assert json.loads(facts["mean"]) == [0.0] and json.loads(facts["class_names"]) is None


def test_a_program_of_torch_export_gives_the_modules_own_probabilities(classifier, images, tmp_path):
    out = tmp_path / "new" / "model.pt2"
    assert main(["export", "--ckpt_path", str(classifier), str(out)]) == 0
    extra_files = {export.METADATA_FILE: ""}
    program = torch.export.load(out, extra_files=extra_files).module()
    for size in (1, 5):
        torch.testing.assert_close(program(images[:size]), compute(classifier, images[:size]))
    assert json.loads(extra_files[export.METADATA_FILE])["output"] == "probabilities, float32 (N, 10)"


def test_a_generator_turns_noise_and_classes_into_images(gan, tmp_path):
    assert main(["export", "--ckpt_path", str(gan), str(tmp_path / "generator.pt2")]) == 0
    module = GAN.load_from_checkpoint(gan).eval()
    noise, labels = module.draw_noise(3), torch.tensor([3, 1, 9])
    program = torch.export.load(tmp_path / "generator.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(noise, labels), module(noise, labels) / 2 + 0.5)


def test_what_gives_something_else_than_the_module_is_not_left_in_place(classifier, tmp_path, monkeypatch, capsys):
    make = export._make_pt2

    def make_wrong(program, exportable):
        content, call = make(program, exportable)
        return content, lambda images: call(images) + 0.01

    monkeypatch.setattr(export, "_make_pt2", make_wrong)
    assert main(["export", "--ckpt_path", str(classifier), str(tmp_path / "model.pt2")]) == 1
    assert "differ from the module's own by up to" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_module_is_refused_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.strategy.connect(BoringModel())
    trainer.save_checkpoint("boring.ckpt")
    config = {"model": {"class_path": "pytorch_lightning.demos.boring_classes.BoringModel"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["export", "--ckpt_path=boring.ckpt", "model.pt2"]) == 2
    assert "boring.ckpt is of a BoringModel, which can't be exported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--ckpt_path=x.ckpt", "model.pth"], 2, "model.pth ends in neither .onnx (ONNX) nor .pt2 (torch.export)"),
        (["--ckpt_path=gone.ckpt", "model.pt2"], 2, "There is no checkpoint gone.ckpt"),
        (["--ckpt_path=x.ckpt", "there.pt2"], 1, "there.pt2 exists, and is left as it is"),
        (["--ckpt_path=x.ckpt", "model.pt2"], 1, "x.ckpt is no checkpoint of Lightning"),
    ],
)
def test_bad_input_is_refused(words, status, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ckpt").write_text("x")
    (tmp_path / "there.pt2").write_text("mine")
    assert main(["export", *words]) == status
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.pt2").read_text() == "mine"


def test_packages_of_onnx_that_are_missing_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    assert main(["export", "--ckpt_path", __file__, str(tmp_path / "model.onnx")]) == 2
    err = capsys.readouterr().err
    assert "takes no_such_package. Run pip install 'lightning-adabelief[onnx]'" in err


@pytest.mark.parametrize("oldest", ["2.999", "10.0"])
def test_a_torch_that_is_too_old_for_onnx_is_refused(oldest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "OLDEST_TORCH_OF_ONNX", oldest)
    assert main(["export", "--ckpt_path", __file__, str(tmp_path / "model.onnx")]) == 2
    assert f"takes torch {oldest} or newer, and this is {torch.__version__}. Update" in capsys.readouterr().err
