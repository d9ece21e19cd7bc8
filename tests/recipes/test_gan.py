"""GANs: what steps when, what is measured, and that a resumed run goes on exactly."""

import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn

from lightning_adabelief import AdaBelief, BeliefMonitor
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import recipes
from lightning_adabelief.recipes.gan import (
    GAN,
    CIFAR10Images,
    ClassifierScores,
    DCGANCritic,
    DCGANGenerator,
    Hinge,
    InceptionScores,
    Pictures,
    ResNetCritic,
    ResNetGenerator,
    Wasserstein,
    WassersteinGP,
)
from lightning_adabelief.recipes.gan.scores import Comparison
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageClassifier, SmallCNN


def make_gan(loss=None, num_classes=None, **options):
    adabelief = {"lr": 1e-3, "betas": (0.5, 0.999), "eps": 1e-12, "rectify": False}
    options = {
        "generator_optimizer": lambda params: AdaBelief(params, **adabelief),
        "critic_optimizer": lambda params: AdaBelief(params, **adabelief),
        "n_critic": 2,
    } | options
    return GAN(
        DCGANGenerator(image_size=8, base_size=2, channels=1, noise_size=16, width=8, num_classes=num_classes),
        DCGANCritic(image_size=8, base_size=2, channels=1, width=8, num_classes=num_classes),
        loss,
        **options,
    )


def make_trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, "logger": False, "enable_checkpointing": False} | options,
    )


def steps_of(optimizer):
    return {float(state["step"]) for state in optimizer.state.values()}


@pytest.mark.parametrize("loss", [Wasserstein(), WassersteinGP(), Hinge()], ids=lambda loss: type(loss).__name__)
def test_the_critic_steps_with_each_batch_and_the_generator_with_every_third(loss, tmp_path):
    """16 batches an epoch: the count goes on over the epoch's end."""
    trainer = make_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    trainer.fit(make_gan(loss, n_critic=3), DigitsDataModule())
    generator, critic = trainer.optimizers
    assert steps_of(critic) == {32.0}
    assert steps_of(generator) == {32 // 3}
    assert generator.param_groups[0]["param_names"][0] == "generator.first.0.weight"
    assert all(name.startswith("critic.") for name in critic.param_groups[0]["param_names"])


def test_each_optimizer_warms_up_in_its_own_steps(tmp_path):
    gan = make_gan(
        generator_optimizer=lambda params: AdaBelief(params, warmup=0.5),
        critic_optimizer=lambda params: AdaBelief(params, warmup=0.5),
        n_critic=4,
    )
    trainer = make_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    trainer.fit(gan, DigitsDataModule())
    generator, critic = (optimizer.param_groups[0]["total_steps"] for optimizer in trainer.optimizers)
    assert (generator, critic) == (8, 32)


def test_weights_are_clipped_after_each_step_of_the_critic(tmp_path):
    gan = make_gan(Wasserstein(clip=0.02))
    make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(gan, DigitsDataModule())
    assert max(param.detach().abs().max().item() for param in gan.critic.parameters()) == pytest.approx(0.02)
    assert max(param.detach().abs().max().item() for param in gan.generator.parameters()) > 0.02


def test_the_gradient_penalty_is_that_of_the_slope():
    """A linear critic of slope 3 everywhere: (3 - 1)^2, times the weight."""
    slope = torch.zeros(4 * 4)
    slope[5] = 3.0
    penalty = WassersteinGP(weight=10.0).penalty(
        lambda images: images.flatten(1) @ slope,
        torch.rand(6, 1, 4, 4),
        torch.rand(6, 1, 4, 4),
        torch.Generator().manual_seed(0),
    )
    assert penalty.item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)


def test_the_gradient_penalty_is_in_float32_under_autocast():
    dtypes = []

    class Spy(nn.Linear):
        def forward(self, images):
            scores = super().forward(images.flatten(1))
            dtypes.append(scores.dtype)
            return scores

    images = torch.rand(6, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        WassersteinGP().penalty(Spy(16, 1), images, images.bfloat16(), torch.Generator())
    assert dtypes == [torch.float32]


def test_the_hinge_loss_leaves_alone_what_is_far_enough():
    loss = Hinge().critic(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))
    assert loss.item() == pytest.approx(0.25 + 0.5)


def test_the_generators_step_leaves_the_critic_no_gradient(tmp_path):
    gan = make_gan(n_critic=1)
    trainer = make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(gan, DigitsDataModule())
    critics = [param.grad.clone() for param in gan.critic.parameters()]
    generator_optimizer, _ = gan.optimizers()
    gan._step_generator(generator_optimizer, 8, None)
    assert all(torch.equal(param.grad, before) for param, before in zip(gan.critic.parameters(), critics, strict=True))
    assert all(param.requires_grad for param in gan.critic.parameters())


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for its, others in zip(one, other, strict=True):
            assert_equal(its, others)
    else:
        assert one == other


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("loss", [WassersteinGP(), Hinge()], ids=lambda loss: type(loss).__name__)
def test_a_resumed_run_goes_on_as_if_it_had_not_been_interrupted(loss, tmp_path):
    """To the bit: weights, average, both optimizers' states, noise, and the order of the data."""

    def run(epochs, ckpt_path=None):
        pl.seed_everything(0, verbose=False)
        gan = make_gan(loss, scores=ClassifierScores(training_steps=2, num_samples=100), ema_decay=0.9, n_critic=3)
        trainer = make_trainer(tmp_path, max_epochs=epochs)
        trainer.fit(gan, DigitsDataModule(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return torch.load(tmp_path / f"{epochs}.ckpt", weights_only=True)

    whole = run(2)
    run(1)
    resumed = run(2, tmp_path / "1.ckpt")
    for key in ("state_dict", "optimizer_states", "gan"):
        assert_equal(resumed[key], whole[key])


@pytest.mark.parametrize("sides", [(10, None), (None, 10), (10, 9)])
def test_networks_that_look_at_different_classes_are_an_error(sides):
    generator, critic = sides
    with pytest.raises(ValueError, match=f"num_classes is {generator} and the critic's {critic}"):
        GAN(DCGANGenerator(num_classes=generator), DCGANCritic(num_classes=critic))


@pytest.mark.parametrize(
    ("generator", "critic"),
    [
        (DCGANGenerator(16, 4, 3, 8, 4, num_classes=10), DCGANCritic(16, 4, 3, 4, num_classes=10)),
        (ResNetGenerator(16, 4, 3, 8, 4, num_classes=10), ResNetCritic(3, 4, num_classes=10)),
    ],
    ids=["DCGAN", "ResNet"],
)
def test_conditional_networks_look_at_the_class(generator, critic):
    noise = torch.randn(10, 8)
    labels = torch.arange(10)
    generator.eval(), critic.eval()
    images = generator(noise, labels)
    assert images.shape == (10, 3, 16, 16) and images.abs().max() <= 1
    assert not torch.equal(images, generator(noise, labels.flip(0)))
    scores = critic(images, labels)
    assert scores.shape == (10,) and not torch.equal(scores, critic(images, labels.flip(0)))


def test_a_conditional_gan_trains_and_draws_the_classes_in_turn(tmp_path):
    gan = make_gan(num_classes=10, scores=ClassifierScores(training_steps=2, num_samples=50), ema_decay=0.5)
    trainer = make_trainer(tmp_path, limit_train_batches=4)
    trainer.fit(gan, DigitsDataModule())
    assert gan.labels_in_turn(12).tolist() == [*range(10), 0, 1]
    images = torch.cat(trainer.predict(gan, DigitsDataModule()))
    assert images.shape == (360, 1, 8, 8) and images.min() >= 0 and images.max() <= 1


def test_with_an_average_it_is_the_average_that_is_looked_at(tmp_path):
    gan = make_gan(ema_decay=0.5, n_critic=1)
    make_trainer(tmp_path, limit_train_batches=3, limit_val_batches=0).fit(gan, DigitsDataModule())
    gan.eval()
    noise = gan.draw_noise(2)
    with torch.no_grad():
        assert torch.equal(gan(noise), gan.ema.module(noise))
        assert not torch.equal(gan(noise), gan.generator(noise))
    assert not any(param.requires_grad for param in gan.ema.parameters())


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
    with pytest.raises(ValueError, match="pip install torch-fidelity"):
        InceptionScores()


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


class Tags(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.metrics = {}

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics


def test_validation_logs_the_distance_with_what_it_is_to_be_compared_with(tmp_path):
    logger = Tags()
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
    assert tested["test/frechet_digits"] > 0


def test_beliefs_of_generator_and_critic_go_by_their_names(tmp_path):
    logger = Tags()
    options = {"logger": logger, "callbacks": [BeliefMonitor(every_n_steps=1)], "limit_val_batches": 0}
    make_trainer(tmp_path, limit_train_batches=2, **options).fit(make_gan(), DigitsDataModule())
    assert {"belief/s_t/generator", "belief/s_t/critic"} <= logger.metrics.keys()
    assert any(tag.startswith("belief/s_t/critic.layers") for tag in logger.metrics)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_pictures_go_to_tensorboard_and_beside_the_logs(num_classes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = pl.loggers.TensorBoardLogger(tmp_path)
    options = {"logger": logger, "callbacks": [Pictures()], "limit_train_batches": 4, "log_every_n_steps": 2}
    make_trainer(tmp_path, **options).fit(make_gan(num_classes=num_classes), DigitsDataModule())
    names = {path.name for path in (tmp_path / "lightning_logs/version_0/pictures").iterdir()}
    assert names == {"samples.png", "samples-0001.png", "interpolation.png", "losses.png"}
    events = EventAccumulator(logger.log_dir).Reload()
    assert {"samples", "interpolation", "losses"} <= set(events.Tags()["images"])


def test_losses_drawn_go_on_after_a_resume(tmp_path):
    pictures = Pictures()
    options = {"callbacks": [pictures], "limit_train_batches": 4, "log_every_n_steps": 2, "limit_val_batches": 0}
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(make_gan(), DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = Pictures()
    make_trainer(tmp_path, **options | {"callbacks": [again], "max_epochs": 2}).fit(
        make_gan(), DigitsDataModule(), ckpt_path=tmp_path / "x.ckpt"
    )
    assert [batch for batch, *_ in again._losses] == [2, 4, 6, 8]


def test_an_image_size_that_doubling_cannot_reach_is_an_error():
    with pytest.raises(ValueError, match=r"image_size: 28. With a base_size of 4 give one of \[8, 16"):
        DCGANGenerator(image_size=28)
    assert DCGANGenerator(28, base_size=7, width=4)(torch.randn(2, 128)).shape == (2, 3, 28, 28)


@pytest.mark.parametrize(("option", "value"), [("n_critic", 0), ("ema_decay", 1.0)])
def test_an_option_that_makes_no_sense_is_an_error(option, value):
    with pytest.raises(ValueError, match=f"Invalid {option}: {value}"):
        make_gan(**{option: value})


def test_cifar10s_images_are_as_they_are_and_all_are_trained_on(paper_data):
    data = CIFAR10Images(num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_set) == 5 * len(data.test_set) == 5 * len(data.val_set)
    images, labels = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert images.dtype == torch.float32 and images.min() >= 0 and 0.9 < images.max() <= 1
    assert torch.equal(images, data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)[0])


def test_without_cifar10s_files_the_error_names_them_their_size_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.tar.gz \(170 MB"):
        CIFAR10Images(str(tmp_path / "none"), download=False).prepare_data()


GANS = [recipe for recipe in recipes().values() if recipe.path.parent.name == "gan"]


@pytest.mark.parametrize("recipe", GANS, ids=lambda recipe: recipe.name)
def test_the_authors_settings_are_written_out(recipe):
    model = yaml.safe_load(recipe.path.read_text())["model"]["init_args"]
    for key in ("generator_optimizer", "critic_optimizer"):
        options = model[key]["init_args"]
        if recipe.name.startswith("cifar10"):
            assert options["lr"] == 2e-4 and options["betas"][0] in (0.5, 0.0) and model["n_critic"] == 5
            assert options["eps"] == (1e-16 if "sngan" in recipe.name else 1e-12)
            assert options["rectify"] is ("sngan" in recipe.name)
        assert (options["residual"] == "previous") == ("previous" in recipe.name)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe.name for recipe in GANS if recipe.name.startswith("digits")])
def test_digits_come_within_15_percent_of_the_untrained_generators_distance(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", recipe]) == 0
    share = capsys.readouterr().out.split("frechet_digits_share")[1].split()[0]
    assert float(share) < 0.15


def test_the_readme_quotes_the_stability_that_was_measured():
    folder = Path(__file__).parents[2]
    measured = (folder / "benchmarks/results/gan_stability.md").read_text(encoding="utf-8").splitlines()
    readme = GANS[0].path.with_name("README.md").read_text(encoding="utf-8").splitlines()
    quoted = [line for line in readme if line.startswith(("| AdaBelief", "| Adam", "| RMSprop"))]
    assert len(quoted) == 6 and set(quoted) <= set(measured)
