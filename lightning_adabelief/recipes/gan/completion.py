"""Completion of a GAN's networks by the size and the classes of the data."""

from __future__ import annotations

from lightning_adabelief.lightning_tree import LightningDataModule, isolate_rng
from lightning_adabelief.recipes.gan.networks import Critic, Generator
from lightning_adabelief.recipes.image_classification.channels_and_classes import find_classes


def find_image_size(data: LightningDataModule) -> int:
    """Return the height of the images of the first training batch.

    Args:
        data: A DataModule, set up for training, whose batches are images (N, C, H, W) and labels (N,).
    """
    with isolate_rng():  # drawing a batch must not change the order of the training's own
        images, _ = next(iter(data.train_dataloader()))
    return images.shape[-2]


def find_num_classes(data: LightningDataModule) -> int:
    """Return the number of the data's classes.

    Args:
        data: A DataModule, set up for training, whose batches are images (N, C, H, W) and labels (N,).

    Raises:
        ValueError: If there are fewer than two.
    """
    classes = find_classes(data)
    if classes < 2:
        raise ValueError(
            f"conditional is true, and the data have {classes} class. Give images of two classes or more, in a folder "
            "for each, or conditional false"
        )
    return classes


def complete_networks(generator: Generator, critic: Critic, image_size: int | None, num_classes: int | None) -> None:
    """Make the layers that are still missing.

    Args:
        generator: The generator.
        critic: The critic.
        image_size: Height and width of the images; None if no network waits for it.
        num_classes: The number of classes for networks that have none; None to leave them as they are.
    """
    for network in (generator, critic):
        if num_classes is not None and network.num_classes is None:
            network.condition_on(num_classes)
        if image_size is not None:
            network.complete(image_size)


def check_same_classes(generator: Generator, critic: Critic) -> None:
    """Raise a ValueError if generator and critic have different numbers of classes."""
    if generator.num_classes != critic.num_classes:
        raise ValueError(
            f"The generator's num_classes is {generator.num_classes} and the critic's {critic.num_classes}. Give "
            "the same number to both, or to neither"
        )


def check_same_shape(what: str, shape: tuple[int, ...] | None, critic: Critic) -> None:
    """Raise a ValueError if a critic can't score images of a shape; a network of one's own need not give its own.

    Args:
        what: The images, for the message.
        shape: (C, H, W); None if it is not known.
        critic: The critic.
    """
    expected = critic.image_shape
    if shape is not None and expected is not None and shape != expected:
        raise ValueError(
            f"Of {what}, channels, height and width are {shape}, and the critic takes {expected}. Give generator and "
            "critic the image_size and channels of the data"
        )
