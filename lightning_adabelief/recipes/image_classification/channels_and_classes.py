"""Numbers of channels and classes: taken from the data, and checked against the network and the config."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_adabelief.lightning_tree import LightningDataModule, isolate_rng
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData

ADVICE = "Give the DataModule the attributes in_channels and num_classes, or ImageClassifier num_classes"
"""The end of an error message where the data can't be looked through."""


def find_numbers(
    network: nn.Module, data: LightningDataModule | None, num_classes: int | None, fitting: bool
) -> tuple[int | None, int | None]:
    """Find the numbers of classes and of channels.

    Args:
        network: The network.
        data: The DataModule, if there is one.
        num_classes: The number given to ImageClassifier, if any.
        fitting: True to look through the data where nobody tells a number. A test has a checkpoint, which does.

    Returns:
        The number of classes, and that of channels; None for one that is not known, or, of channels, not needed.

    Raises:
        ValueError: If two of them have different numbers, the data can't be looked through, or there is one class
            only.
    """
    classes = agree_on("num_classes", network, data, num_classes)
    channels = agree_on("in_channels", network, data)
    if fitting and data is not None:
        has_layers = not isinstance(network, NetworkFromData) or network.is_complete
        classes = classes or find_classes(data)
        channels = channels or (None if has_layers else find_channels(data))
    if classes is not None and classes < 2:
        raise ValueError(
            f"There is {classes} class, and a classifier tells classes apart. Give images of two or more: "
            "for yes or no, of both"
        )
    return classes, channels


def agree_on(
    name: Literal["in_channels", "num_classes"],
    network: nn.Module,
    data: LightningDataModule | None,
    config: int | None = None,
) -> int | None:
    """Return the number that the network, the DataModule and the config agree on.

    Args:
        name: Name of the number.
        network: The network.
        data: The DataModule, if there is one.
        config: The number given to ImageClassifier, if any.

    Returns:
        The number; None if none of the three has it.

    Raises:
        ValueError: If two of them have different numbers.
    """
    sources = {
        "ImageClassifier": config,
        "the network": _read_from_network(network, name),
        "the data": _read_from_data(data, name),
    }
    known = {source: number for source, number in sources.items() if number is not None}
    if len(set(known.values())) > 1:
        numbers = " and ".join(f"{number} by {source}" for source, number in known.items())
        raise ValueError(f"{name} is {numbers}. Give null in the config to use the number of the data")
    return next(iter(known.values()), None)


def check_batch(images: Tensor, labels: Tensor | None, in_channels: int | None, num_classes: int) -> None:
    """Raise if a batch does not fit the network.

    Args:
        images: Images (N, C, H, W).
        labels: Labels (N,); None to leave them unchecked, as their check waits for the device.
        in_channels: Number of channels that the network takes; None if it is not known.
        num_classes: Number of classes.

    Raises:
        ValueError: If the images have another number of channels, or a label is not less than
            ``num_classes``.
    """
    if in_channels is not None and images.shape[1] != in_channels:
        raise ValueError(
            f"The images have {images.shape[1]} channels and the network takes {in_channels}. Give the network "
            f"in_channels {images.shape[1]}"
        )
    if labels is not None and (largest := int(labels.max())) >= num_classes:
        raise ValueError(
            f"There is a label {largest}, and with num_classes {num_classes} the labels are 0 to {num_classes - 1}. "
            f"Give num_classes {largest + 1} or more, or null to use the number of the data"
        )


def check_logits(logits: Tensor, num_classes: int | None) -> None:
    """Raise if the network does not return one logit per class.

    Args:
        logits: The network's output, which should be (N, num_classes).
        num_classes: Number of classes.

    Raises:
        ValueError: If the shape is another.
    """
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"The network gives logits of shape {tuple(logits.shape)} and there are {num_classes} classes. Give the "
            f"network {num_classes} classes"
        )


def find_channels(data: LightningDataModule) -> int:
    """Return the number of channels: the DataModule's attribute, or that of the first training batch.

    Args:
        data: A DataModule, set up for training, whose batches are images (N, C, H, W) and labels (N,).

    Raises:
        ValueError: If the images of a batch have another number of dimensions, or the DataModule's
            training loader is not a DataLoader.
    """
    channels = _read_from_data(data, "in_channels")
    if channels is None:
        with isolate_rng():  # drawing a batch must not change the order of the training's own
            images = next(iter(_get_train_loader(data)))[0]
        if images.ndim != 4:
            raise ValueError(
                f"The images of a batch have the shape {tuple(images.shape)}. Give batches of (N, channels, H, W)"
            )
        channels = images.shape[1]
    return channels


def find_classes(data: LightningDataModule) -> int:
    """Return the number of classes: the DataModule's attribute, its training set's, or that of its labels.

    A training set with ``classes``, as torchvision's have, has as many; otherwise all of its labels are
    read, and there is one class more than the largest label.

    Args:
        data: A DataModule, set up for training, whose batches are images and integer labels (N,).

    Raises:
        ValueError: If the DataModule's training loader is not a DataLoader, or its dataset has no length.
    """
    classes = _read_from_data(data, "num_classes")
    if classes is None:
        with isolate_rng():
            classes = _count_classes(_get_train_loader(data))
    return classes


def get_input_channels(network: nn.Module) -> int | None:
    """Return the number of channels that a network takes; None if it is not known."""
    return _read_from_network(network, "in_channels")


def _read_from_network(network: nn.Module, name: str) -> int | None:
    if isinstance(network, NetworkFromData):
        return getattr(network, name)
    if name == "in_channels":  # any other network: its first convolution takes the images
        return next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return None


def _read_from_data(data: LightningDataModule | None, name: str) -> int | None:
    value = getattr(data, name, None)
    return value if isinstance(value, int) else None


def _get_train_loader(data: LightningDataModule) -> DataLoader:
    loader: Any = data.train_dataloader()
    if not isinstance(loader, DataLoader):
        raise ValueError(
            f"{type(data).__name__}.train_dataloader gives {type(loader).__name__}, no DataLoader. {ADVICE}"
        )
    return loader


def _count_classes(loader: DataLoader) -> int:
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if hasattr(dataset, "classes"):
        return len(dataset.classes)
    if not hasattr(dataset, "__len__"):  # it may be endless
        raise ValueError(f"{type(dataset).__name__} has no length, so its classes can't be counted. {ADVICE}")
    in_order = DataLoader(
        loader.dataset, loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )
    return 1 + max(int(torch.as_tensor(labels).max()) for _, labels in in_order)
