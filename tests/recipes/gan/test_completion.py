"""Networks that are made for the data: their size and their classes."""

import pytest
import torch

from lightning_adabelief.recipes.gan import GAN, DCGANCritic, DCGANGenerator
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from tests.recipes.gan.small_gan import make_trainer


def make_waiting_gan(**options):
    generator = DCGANGenerator(None, 2, channels=1, noise_size=8, width=4)
    return GAN(generator, DCGANCritic(None, 2, channels=1, width=4), n_critic=1, **options)


class SameLabel(DigitsDataModule):
    """Digits that are all of one class."""

    num_classes = 1


def fit(tmp_path, gan, data=None, **options):
    trainer = make_trainer(tmp_path, limit_train_batches=2, limit_val_batches=0, **options)
    trainer.fit(gan, data or DigitsDataModule(), ckpt_path=options.pop("ckpt_path", None))
    return trainer


@pytest.mark.parametrize("conditional", [False, True])
def test_a_gan_is_made_for_the_data_and_again_from_its_checkpoint(conditional, tmp_path):
    gan = make_waiting_gan(conditional=conditional, ema_decay=0.5)
    trainer = fit(tmp_path, gan)
    assert gan.generator.image_shape == (1, 8, 8)
    assert gan.generator.num_classes == gan.critic.num_classes == (10 if conditional else None)
    names = {name for group in trainer.optimizers[0].param_groups for name in group["param_names"]}
    assert ("generator.embedding.weight" in names) is conditional and "generator.first.0.weight" in names
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    fresh = make_waiting_gan(conditional=conditional, ema_decay=0.5)
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"])
    noise, labels = gan.draw_noise(3), gan.labels_in_turn(3)
    assert torch.equal(fresh.eval()(noise, labels), gan.eval()(noise, labels))


def test_conditional_makes_networks_of_a_given_size_conditional_too(tmp_path):
    gan = GAN(DCGANGenerator(8, 2, 1, 8, 4), DCGANCritic(8, 2, 1, 4), conditional=True)
    fit(tmp_path, gan)
    assert gan.generator.num_classes == 10


def test_networks_made_for_the_data_leave_the_order_of_the_data_as_it_was(tmp_path):
    orders = []
    for gan in (make_waiting_gan(), GAN(DCGANGenerator(8, 2, 1, 8, 4), DCGANCritic(8, 2, 1, 4), n_critic=1)):
        seen = []
        gan.training_step = lambda batch, _, seen=seen: seen.append(batch[0].sum().item())
        torch.manual_seed(3)
        gan.configure_model = lambda gan=gan: (GAN.configure_model(gan), torch.manual_seed(4))
        fit(tmp_path, gan)
        orders.append(seen)
    assert orders[0] == orders[1]


def test_conditions_that_the_data_do_not_give_are_errors_that_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="the data have 1 class. Give images of two classes or more"):
        fit(tmp_path, make_waiting_gan(conditional=True), SameLabel())
    with pytest.raises(ValueError, match="wait for the size or the classes of the data. Train with a DataModule"):
        data = DigitsDataModule()
        data.setup("fit")
        make_trainer(tmp_path).fit(make_waiting_gan(), data.train_dataloader(), data.val_dataloader())
