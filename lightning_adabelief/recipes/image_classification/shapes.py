"""What a network must know of its data, channels and classes, from the data themselves."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_adabelief.lightning_tree import LightningDataModule, isolate_rng
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData

TELL = "Give the DataModule the attributes in_channels and num_classes, or ImageClassifier num_classes"


def agreed(
    name: Literal["in_channels", "num_classes"],
    network: nn.Module,
    data: LightningDataModule | None,
    config: int | None = None,
) -> int | None:
    """What the network, the DataModule and the config say of a number; None if none of them does.

    Args:
        name: The number's name.
        network: The network.
        data: The DataModule, if there is one.
        config: What was given beside the network.

    Raises:
        ValueError: If they say different numbers.
    """
    said = {"ImageClassifier": config, "the network": _of_network(network, name), "the data": _declared(data, name)}
    said = {who: number for who, number in said.items() if number is not None}
    if len(set(said.values())) > 1:
        numbers = " and ".join(f"{number} by {who}" for who, number in said.items())
        raise ValueError(f"{name} is {numbers}. Give null, where the config has a number, for the data's")
    return next(iter(said.values()), None)


def check_batch(images: Tensor, labels: Tensor | None, in_channels: int | None, num_classes: int) -> None:
    """Check that a batch is one that the network was made for.

    Args:
        images: Of shape (N, C, H, W).
        labels: Of shape (N,); None to leave out their check, which waits for the device.
        in_channels: Channels that the network takes; None if that is not known.
        num_classes: Number of classes.

    Raises:
        ValueError: If it is not.
    """
    if in_channels is not None and images.shape[1] != in_channels:
        raise ValueError(
            f"The images have {images.shape[1]} channels and the network takes {in_channels}. Give the network "
            f"in_channels {images.shape[1]}"
        )
    if labels is not None and (largest := int(labels.max())) >= num_classes:
        raise ValueError(
            f"There is a label {largest}, and with num_classes {num_classes} the labels are 0 to {num_classes - 1}. "
            f"Give num_classes {largest + 1} or more, or null for the data's"
        )


def check_logits(logits: Tensor, num_classes: int | None) -> None:
    """Check that there is a logit a class.

    Raises:
        ValueError: If there is not.
    """
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"The network gives logits of shape {tuple(logits.shape)} and there are {num_classes} classes. Give the "
            f"network {num_classes} classes"
        )


def find_channels(data: LightningDataModule) -> int:
    """Find the channels of the images: what the DataModule declares, or the first training batch shows.

    Args:
        data: A DataModule that has been set up for training; batches are images (N, C, H, W) and labels.

    Raises:
        ValueError: If the data don't show it.
    """
    channels = _declared(data, "in_channels")
    if channels is None:
        with isolate_rng():  # the order of the data stays what it is without the look
            images = next(iter(_train_loader(data)))[0]
        if images.ndim != 4:
            raise ValueError(f"The images of a batch have the shape {tuple(images.shape)}, not (N, channels, H, W)")
        channels = images.shape[1]
    return channels


def find_classes(data: LightningDataModule) -> int:
    """Find the number of classes: what the DataModule or its training set declares, or its labels show.

    A dataset with ``classes``, as torchvision's have, declares it; otherwise all training labels are
    looked through.

    Args:
        data: A DataModule that has been set up for training; batches are images and integer labels.

    Raises:
        ValueError: If the data don't show it.
    """
    classes = _declared(data, "num_classes")
    if classes is None:
        with isolate_rng():
            classes = _classes(_train_loader(data))
    return classes


def channels_taken(network: nn.Module) -> int | None:
    """The channels that a network takes; None if that is not known."""
    return _of_network(network, "in_channels")


def _of_network(network: nn.Module, name: str) -> int | None:
    if isinstance(network, NetworkFromData):
        return getattr(network, name)
    if name == "in_channels":
        return next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return None


def _declared(data: LightningDataModule | None, name: str) -> int | None:
    value = getattr(data, name, None)
    return value if isinstance(value, int) else None


def _train_loader(data: LightningDataModule) -> DataLoader:
    loader: Any = data.train_dataloader()
    if not isinstance(loader, DataLoader):
        raise ValueError(f"{type(data).__name__}.train_dataloader gives {type(loader).__name__}, no DataLoader. {TELL}")
    return loader


def _classes(loader: DataLoader) -> int:
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if hasattr(dataset, "classes"):
        return len(dataset.classes)
    if not hasattr(dataset, "__len__"):
        raise ValueError(f"{type(dataset).__name__} has no length, so its classes can't be counted. {TELL}")
    in_order = DataLoader(
        loader.dataset, loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )
    return 1 + max(int(torch.as_tensor(labels).max()) for _, labels in in_order)
