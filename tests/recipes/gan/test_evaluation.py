"""Validation and test of a GAN."""

import pytest
import pytorch_lightning as pl
import torch

from lightning_adabelief.recipes.gan import ClassifierScores
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.recipes.gan.small_gan import LastMetrics, make_gan, make_trainer


def test_validation_logs_the_distance_with_what_it_is_to_be_compared_with(tmp_path):
    logger = LastMetrics()
    trainer = make_trainer(tmp_path, limit_train_batches=2, logger=logger, log_every_n_steps=1)
    gan = make_gan(scores=ClassifierScores(training_steps=60, num_samples=200))
    trainer.fit(gan, DigitsDataModule())
    logged = logger.metrics
    distance = logged["val/frechet_digits"]
    assert {"train/critic_loss", "train/generator_loss", "val/kernel_digits"} <= logged.keys()
    assert 0 < logged["val/frechet_digits_floor"] < 0.2 * logged["val/frechet_digits_untrained"]
    assert logged["val/frechet_digits_share"] == pytest.approx(distance / logged["val/frechet_digits_untrained"])
    assert trainer.callback_metrics["val/distance"] == pytest.approx(distance)
    assert not any("fid" in tag or "distance" in tag for tag in logged)
    (tested,) = trainer.test(gan, DigitsDataModule(), verbose=False)
    for reference in ("untrained", "floor"):
        key = f"frechet_digits_{reference}"
        assert tested[f"test/{key}"] == pytest.approx(logged[f"val/{key}"], rel=1e-5), "measured once, at the start"
    share = tested["test/frechet_digits"] / tested["test/frechet_digits_untrained"]
    assert tested["test/frechet_digits_share"] == pytest.approx(share)


@pytest.mark.parametrize("batches, is_measured", [(-1, True), (2, False)])
def test_a_sanity_check_of_all_batches_measures_the_untrained_generator(tmp_path, batches, is_measured):
    class Recorded(pl.Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            self.distance = trainer.callback_metrics.get("val/distance")

    recorded = Recorded()
    trainer = make_trainer(tmp_path, limit_train_batches=1, num_sanity_val_steps=batches, callbacks=[recorded])
    trainer.fit(make_gan(scores=ClassifierScores(training_steps=60, num_samples=200)), DigitsDataModule())
    if is_measured:
        untrained = trainer.callback_metrics["val/frechet_digits_untrained"]
        assert recorded.distance.item() == pytest.approx(untrained.item(), rel=1e-5)
    else:
        assert recorded.distance is None


class CountedScores(ClassifierScores):
    """Scores that count the images whose features are extracted."""

    extracted = 0

    def extract(self, images):
        self.extracted += len(images)
        return super().extract(images)


def test_the_average_and_the_weights_themselves_are_compared_with_the_same_real_images(tmp_path):
    """Each score of the weights themselves is what it is without an average, and real images are looked at once."""

    def fit(ema_decay):
        torch.manual_seed(0)
        scores = CountedScores(training_steps=2, num_samples=100)
        trainer = make_trainer(tmp_path, limit_train_batches=4, num_sanity_val_steps=0)
        gan = make_gan(scores=scores, ema_decay=ema_decay, n_critic=1)
        trainer.fit(gan, DigitsDataModule())
        before = scores.extracted
        (values,) = trainer.validate(gan, DigitsDataModule(), verbose=False)
        return values, scores.extracted - before, trainer.callback_metrics["val/distance"]

    plain, _, _ = fit(None)
    both, extracted, distance = fit(0.9)
    assert extracted == 360 + 2 * 100
    names = ("frechet_digits", "kernel_digits", "class_score_digits", "classes_digits")
    for name in names:
        assert both[f"val/{name}_plain"] == plain[f"val/{name}"]
    assert both["val/frechet_digits"] != plain["val/frechet_digits"], "the average's"
    assert distance == pytest.approx(both["val/frechet_digits"])
    assert not any(tag.endswith("_plain") for tag in plain)
