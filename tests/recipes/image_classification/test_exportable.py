"""A classifier as a program from images in [0, 1] to probabilities."""

import json

import pytest
import torch

from lightning_adabelief.recipes.image_classification import ImageClassifier, SmallCNN
from lightning_adabelief.recipes.image_classification.exportable import make_exportable
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing
from lightning_adabelief.recipes.image_classification.training_images import TrainingImages

OWN = Preprocessing(16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=0.8, interpolation="bicubic")


def make_classifier(**known):
    torch.manual_seed(0)
    module = ImageClassifier(SmallCNN(3, 2, width=4)).eval()
    module.configure_model()
    module.training_images = TrainingImages(**known)
    return module


def test_images_are_normalized_as_those_that_were_trained_on():
    known = {"mean": list(OWN.mean), "std": list(OWN.std), "preprocessing": OWN}
    module = make_classifier(class_names=["große", "file"], shape=(3, 16, 16), **known)
    exportable = make_exportable(module)
    (images,) = exportable.inputs.values()
    assert images.shape[1:] == (3, 16, 16) and 0 <= images.min() and images.max() <= 1
    expected = module(OWN.normalize(images)).softmax(-1)
    torch.testing.assert_close(exportable.program(images), expected)
    torch.testing.assert_close(exportable.reference(images), expected)
    assert json.loads(exportable.metadata["class_names"]) == ["große", "file"]
    assert json.loads(exportable.metadata["std"]) == [0.4, 0.5, 0.6]
    assert (exportable.metadata["resize"], exportable.metadata["crop"]) == ("20", "16")


def test_where_no_normalization_is_known_images_are_taken_as_they_are():
    module = make_classifier(shape=(3, 8, 8))
    exportable = make_exportable(module)
    (images,) = exportable.inputs.values()
    torch.testing.assert_close(exportable.program(images), module(images).softmax(-1))
    assert exportable.metadata["input"] == "images, float32 (N, 3, 8, 8), normalized as in the training's batches"
    assert exportable.metadata["normalization"].startswith("none: ") and "mean" not in exportable.metadata


def test_a_checkpoint_that_does_not_tell_the_size_of_its_images_is_refused():
    with pytest.raises(ValueError, match="does not tell the size of its images, .* Train anew, or resume"):
        make_exportable(make_classifier())
