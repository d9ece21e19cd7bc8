"""Scores of generated images on a classifier's features and on Inception's."""

import sys

import pytest
import torch

from lightning_adabelief.recipes.gan import (
    ClassifierScores,
    InceptionScores,
    RandomFeatureScores,
    best_available_scores,
)
from lightning_adabelief.recipes.gan.scores import Comparison
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN
from tests.recipes.gan.small_gan import make_trainer


def prepared_scores(**options):
    data = DigitsDataModule()
    data.setup("fit")

    class Batches:
        def __iter__(self):
            return ((images * 2 - 1, labels) for images, labels in data.train_dataloader())

    scores = ClassifierScores(**options)
    scores.prepare(Batches(), torch.device("cpu"))
    return scores, torch.stack([image for image, _ in data.val_set]) * 2 - 1


def compare(scores, real, fake):
    comparison = Comparison(scores, torch.device("cpu"))
    comparison.update(real, real=True)
    comparison.update(fake, real=False)
    return comparison.compute()


def test_scores_tell_real_images_from_noise_and_from_too_few_classes():
    scores, real = prepared_scores(training_steps=100)
    assert scores.num_features == 64
    same, noise = compare(scores, real[:180], real[180:]), compare(scores, real, torch.rand(180, 1, 8, 8) * 2 - 1)
    assert same["frechet_digits"] < 0.1 * noise["frechet_digits"]
    assert same["kernel_digits"] < noise["kernel_digits"]
    assert same["classes_digits"] == 10
    assert compare(scores, real, real[:1].expand(50, -1, -1, -1))["classes_digits"] == 1


def test_the_distance_of_images_that_are_not_finite_is_nan():
    scores, real = prepared_scores(training_steps=2)
    assert torch.tensor(compare(scores, real, torch.full((50, 1, 8, 8), torch.nan))["frechet_digits"]).isnan()


def test_scores_of_a_classifier_are_never_called_fid_kid_or_inceptions():
    scores, real = prepared_scores(training_steps=2)
    names = compare(scores, real[:50], real[50:]).keys()
    assert names == {"frechet_digits", "kernel_digits", "class_score_digits", "classes_digits"}


def test_the_classifier_is_the_same_whatever_the_seed_and_leaves_no_trace_in_the_draws():
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores, _ = prepared_scores(training_steps=2)
        weights.append(scores.classifier.classifier.weight)
        drawn = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(*weights)


def test_the_classifier_can_come_from_a_checkpoint(tmp_path):
    classifier = ImageClassifier(SmallCNN(1, 10))
    trainer = make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(classifier, DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "digits.ckpt")
    scores, _ = prepared_scores(checkpoint=str(tmp_path / "digits.ckpt"))
    assert torch.equal(scores.classifier.classifier.weight, classifier.network.classifier.weight)
    with pytest.raises(ValueError, match="Give its checkpoint"):
        ClassifierScores(network=SmallCNN(1, 10))


def test_fid_without_torch_fidelity_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-adabelief\[fid\]'"):
        InceptionScores()


def test_without_a_network_the_error_names_inceptions_file_and_where_to_put_it(tmp_path, monkeypatch):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    name = inception.URL_INCEPTION_V3.rpartition("/")[2]
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", f"http://127.0.0.1:9/{name}")  # where nobody listens
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="could not be downloaded: .*refused") as caught:
        InceptionScores().prepare([], torch.device("cpu"))
    assert name in str(caught.value) and f"put it into {tmp_path}/hub/checkpoints" in str(caught.value)


def test_inceptions_weights_that_are_not_there_are_refused_before_training():
    pytest.importorskip("torch_fidelity")
    with pytest.raises(ValueError, match=r"There is no file missing\.pth"):
        InceptionScores(weights="missing.pth")


def test_with_inceptions_weights_given_it_is_fid(tmp_path, monkeypatch):
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    with monkeypatch.context() as context:  # the weights are not to be had here: random ones take their place
        context.setattr(extractor, "load_state_dict", lambda self, state: None)
        context.setattr(torch, "load", lambda *_, **__: {})
        state = extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path="none").state_dict()
    torch.save(state, tmp_path / "inception.pth")
    scores = InceptionScores(weights=str(tmp_path / "inception.pth"), num_samples=4)
    scores.prepare([], torch.device("cpu"))
    features, logits = scores.extract(torch.rand(2, 1, 8, 8) * 2 - 1)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    values = compare(scores, images, images.flip(0))
    assert list(values) == ["fid", "kid", "inception_score"] and values["fid"] == pytest.approx(0, abs=1e-3)


def test_random_features_order_digits_by_how_far_they_are_from_real_ones():
    """And their scores are called neither FID nor by the names of a classifier's."""
    data = DigitsDataModule()
    data.setup("fit")
    real = torch.stack([image for image, _ in data.val_set]) * 2 - 1
    others = torch.stack([image for image, _ in data.train_set]) * 2 - 1
    scores = RandomFeatureScores()
    noise = torch.randn(others.shape)
    distances = []
    for strength in (0.0, 0.1, 0.3, 0.6):
        values = compare(scores, real, (others + strength * noise).clamp(-1, 1))
        assert list(values) == ["frechet_random", "kernel_random"]
        distances.append(values["frechet_random"])
    assert distances == sorted(distances) and distances[-1] > 10 * distances[0]
    few = compare(scores, real, others[:4].repeat(100, 1, 1, 1))["frechet_random"]
    upside_down = compare(scores, real, others.flip(2))["frechet_random"]
    assert few > 2 * distances[0] and upside_down > 2 * distances[0]


def test_random_features_are_the_same_whatever_the_seed_and_leave_no_trace_in_the_draws():
    images = torch.rand(70, 1, 16, 16)
    features = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        features.append(RandomFeatureScores().extract(images)[0])
        drawn = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(*features) and features[0].shape == (70, RandomFeatureScores.num_features)


def test_the_best_available_scores_are_fid_where_its_network_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert isinstance(best_available_scores(50), RandomFeatureScores)
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = tmp_path / "hub/checkpoints" / inception.URL_INCEPTION_V3.rpartition("/")[2]
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"not read")
    found = best_available_scores(50)
    assert isinstance(found, InceptionScores) and found.weights == str(weights) and found.num_samples == 50
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    assert isinstance(best_available_scores(50), RandomFeatureScores)
    with pytest.raises(ValueError, match=r"pip install 'lightning-adabelief\[fid\]'"):
        best_available_scores(50, weights=str(weights))
