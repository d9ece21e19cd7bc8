"""The GAN module: what steps when, and that a resumed run continues exactly."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_adabelief import AdaBelief, BeliefMonitor, ConfiguredAdaBelief
from lightning_adabelief.callbacks import ExactResume
from lightning_adabelief.cli.lightning import AdaBeliefCLI
from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.gan import (
    GAN,
    ClassifierScores,
    DCGANCritic,
    DCGANGenerator,
    Hinge,
    Wasserstein,
    WassersteinGP,
)
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.checkpoints import assert_equal
from tests.recipes.gan.small_gan import LastMetrics, make_gan, make_trainer


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


def fit_in_the_command(words, tmp_path, monkeypatch):
    """Run an epoch of one batch of digits-wgan: the learning rates of generator and critic."""
    monkeypatch.chdir(tmp_path)
    optimizers = []
    monkeypatch.setattr(AdaBeliefCLI, "before_fit", lambda cli: optimizers.append(cli.trainer), raising=False)
    quick = ["--trainer.fast_dev_run=1", "--trainer.callbacks=null", "--model.scores=null"]
    assert main(["fit", "--config", "digits-wgan", *quick, *words]) == 0
    return [optimizer.param_groups[0] for optimizer in optimizers[0].optimizers]


def test_the_generators_optimizer_is_the_critics_too(tmp_path, monkeypatch):
    words = ["--model.generator_optimizer.lr=5e-4"]
    generator, critic = fit_in_the_command(words, tmp_path, monkeypatch)
    for option in ("lr", "betas", "eps", "rectify"):
        assert critic[option] == generator[option]
    assert critic["lr"] == 5e-4 and critic["betas"] == (0.5, 0.999)
    assert not set(map(id, critic["params"])) & set(map(id, generator["params"]))


def test_a_critics_optimizer_of_its_own_is_taken_as_it_is_given(tmp_path, monkeypatch):
    words = ["--model.critic_optimizer=lightning_adabelief.AdaBelief", "--model.critic_optimizer.lr=2e-3"]
    generator, critic = fit_in_the_command(words, tmp_path, monkeypatch)
    assert generator["lr"] == 1e-3 and critic["lr"] == 2e-3
    assert critic["betas"] == (0.9, 0.999), "the class's default, not the generator's"


def test_configured_adabelief_serves_both_networks_by_their_names(tmp_path):
    gan = make_gan(generator_optimizer=partial(ConfiguredAdaBelief, lr=1e-3, weight_decay=0.01, betas=(0.5, 0.999)))
    trainer = make_trainer(tmp_path, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(gan, DigitsDataModule())
    names = [[group["name"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
    assert names == [["generator/decayed", "generator/undecayed"], ["critic/decayed", "critic/undecayed"]]


def test_an_optimizer_with_a_schedule_is_an_error(tmp_path):
    gan = make_gan(generator_optimizer=partial(ConfiguredAdaBelief, schedule="cosine"))
    with pytest.raises(ValueError, match="The generator's optimizer has a learning-rate schedule"):
        make_trainer(tmp_path).fit(gan, DigitsDataModule())


def test_a_checkpoint_from_two_optimizers_written_out_resumes_with_one(tmp_path):
    """As configs of earlier versions had it."""

    def make_optimizer(params):
        return AdaBelief(params, lr=1e-3, betas=(0.5, 0.999), eps=1e-12, rectify=False)

    written_out = make_gan(generator_optimizer=make_optimizer, critic_optimizer=make_optimizer)
    options = {"limit_train_batches": 2, "limit_val_batches": 0}
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(written_out, DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    resumed = make_trainer(tmp_path, max_epochs=2, **options)
    resumed.fit(make_gan(generator_optimizer=make_optimizer), DigitsDataModule(), ckpt_path=tmp_path / "x.ckpt")
    assert [steps_of(optimizer) for optimizer in resumed.optimizers] == [{2.0}, {4.0}]


def test_the_generators_step_leaves_the_critic_no_gradient(tmp_path):
    gan = make_gan(n_critic=1)
    trainer = make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(gan, DigitsDataModule())
    critics = [param.grad.clone() for param in gan.critic.parameters()]
    generator_optimizer, _ = gan.optimizers()
    gan._step_generator(generator_optimizer, 8, None)
    assert all(torch.equal(param.grad, before) for param, before in zip(gan.critic.parameters(), critics, strict=True))
    assert all(param.requires_grad for param in gan.critic.parameters())


@pytest.mark.parametrize("loss", [WassersteinGP(), Hinge()], ids=lambda loss: type(loss).__name__)
def test_a_run_resumed_after_a_rare_validation_goes_on_as_if_it_had_not_been_interrupted(loss, tmp_path):
    """To the bit: weights, average, both optimizers' states, noise, and the order of the data."""

    def run(seed, ckpt_path=None):
        pl.seed_everything(seed, verbose=False)
        gan = make_gan(loss, scores=ClassifierScores(training_steps=2, num_samples=100), ema_decay=0.9, n_critic=3)
        saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, enable_version_counter=False)
        options = {"max_epochs": 4, "check_val_every_n_epoch": 2, "enable_checkpointing": True}
        trainer = make_trainer(tmp_path, callbacks=[ExactResume(), saving], **options)
        trainer.fit(gan, DigitsDataModule(), ckpt_path=ckpt_path)
        return torch.load(tmp_path / "epoch=3.ckpt", weights_only=True)

    whole = run(0)
    resumed = run(0, tmp_path / "epoch=1.ckpt")
    for key in ("state_dict", "optimizer_states", "gan"):
        assert_equal(resumed[key], whole[key])


@pytest.mark.parametrize("sides", [(10, None), (None, 10), (10, 9)])
def test_networks_that_look_at_different_classes_are_an_error(sides):
    generator, critic = sides
    with pytest.raises(ValueError, match=f"num_classes is {generator} and the critic's {critic}"):
        GAN(DCGANGenerator(num_classes=generator), DCGANCritic(num_classes=critic))


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


def test_beliefs_of_generator_and_critic_go_by_their_names(tmp_path):
    logger = LastMetrics()
    options = {"logger": logger, "callbacks": [BeliefMonitor(every_n_steps=1)], "limit_val_batches": 0}
    make_trainer(tmp_path, limit_train_batches=2, **options).fit(make_gan(), DigitsDataModule())
    assert {"belief/s_t/generator", "belief/s_t/critic"} <= logger.metrics.keys()
    assert any(tag.startswith("belief/s_t/critic.layers") for tag in logger.metrics)


def test_both_networks_gradients_are_clipped_by_norm_and_measured_before_and_after(tmp_path):
    logger = LastMetrics()
    options = {"logger": logger, "callbacks": [BeliefMonitor(every_n_steps=1)], "limit_val_batches": 0}
    gan = make_gan(gradient_clip_val=1e-3, n_critic=1)
    make_trainer(tmp_path, limit_train_batches=2, **options).fit(gan, DigitsDataModule())
    for network in ("generator", "critic"):
        assert logger.metrics[f"belief/grad_norm/{network}"] == pytest.approx(1e-3, rel=1e-2)
        assert logger.metrics[f"belief/unclipped_grad_norm/{network}"] > 2e-3


@pytest.mark.parametrize(("option", "value"), [("n_critic", 0), ("ema_decay", 1.0), ("gradient_clip_val", -1.0)])
def test_an_option_that_makes_no_sense_is_an_error(option, value):
    with pytest.raises(ValueError, match=f"Invalid {option}: {value}"):
        make_gan(**{option: value})
