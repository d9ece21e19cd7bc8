"""The detectors, and where a ResNet50's weights come from."""

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from lightning_adabelief.recipes.object_detection import ResNet50FasterRCNN, SmallFasterRCNN

SMALL = {"num_classes": 2, "min_size": 64, "max_size": 64}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A ResNet50's state dict in a file, as torchvision's download is."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(resnet50().state_dict(), path)
    return path


def test_in_training_there_are_losses_and_otherwise_detections():
    network = SmallFasterRCNN(width=8, image_size=32, num_classes=3)
    images = [torch.rand(3, 32, 32), torch.rand(3, 32, 32)]
    targets = [
        {"boxes": torch.tensor([[2.0, 2, 12, 20]]), "labels": torch.tensor([3])},
        {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)},
    ]
    losses = network(images, targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(loss.isfinite() for loss in losses.values())
    detections = network.eval()(images)
    assert len(detections) == 2 and all(found["labels"].le(3).all() for found in detections)


def test_weights_from_a_file_are_the_backbones(weights_file):
    network = ResNet50FasterRCNN(weights=str(weights_file), **SMALL)
    network.load_pretrained()
    body = network.detector.backbone.body.state_dict()
    saved = torch.load(weights_file)
    assert all(torch.equal(value, saved[name]) for name, value in body.items()) and len(body) > 200


def test_the_download_is_the_librarys_own_and_its_failure_says_what_to_do(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match=r"no network.*Download https://.*resnet50.*pth .*network\.weights"):
        ResNet50FasterRCNN(**SMALL).load_pretrained()


def test_without_weights_all_layers_are_trained():
    network = ResNet50FasterRCNN(weights=None, **SMALL)
    network.load_pretrained()
    assert all(param.requires_grad for param in network.parameters())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(
    ("trainable", "frozen"), [(None, {"conv1", "layer1"}), (1, {"conv1", "layer1", "layer2", "layer3"})]
)
def test_the_first_layers_are_frozen(trainable, frozen):
    body = ResNet50FasterRCNN(trainable_layers=trainable, **SMALL).detector.backbone.body
    assert {name.split(".")[0] for name, param in body.named_parameters() if not param.requires_grad} == frozen


@pytest.mark.parametrize(
    "content", [b"text", None, {"weight": torch.ones(2)}, [1, 2]], ids=["text", "gone", "other", "list"]
)
def test_a_file_of_something_else_is_an_error_that_names_it(content, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"weights\.pth"):
        ResNet50FasterRCNN(weights=str(path), **SMALL).load_pretrained()


def test_random_layers_are_not_frozen_by_mistake():
    with pytest.raises(ValueError, match="trainable_layers 3 would freeze random layers"):
        ResNet50FasterRCNN(weights=None, trainable_layers=3)
    with pytest.raises(ValueError, match="Invalid trainable_layers: 6"):
        ResNet50FasterRCNN(trainable_layers=6)
