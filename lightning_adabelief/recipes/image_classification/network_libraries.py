"""The libraries that pretrained networks come from: torchvision, and timm where it is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

import torch
import torchvision
from torch import Tensor, nn

from lightning_adabelief.recipes.image_classification.networks import replace_first_convolution
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing
from lightning_adabelief.suggest import suggest

TIMM_PREFIX = "timm/"
"""The beginning of the names of timm's networks."""

WITH_AUXILIARY_HEADS: dict[str, dict[str, Any]] = {
    # Their pretrained weights take images of another normalization, to which transform_input changes ours.
    name: {"aux_logits": False, "transform_input": True, "init_weights": True}
    for name in ("googlenet", "inception_v3")
}
"""Options of torchvision's networks that have further heads, for training alone; they are left out."""


class Library(Protocol):
    """A network of a library, by its name.

    Attributes:
        preprocessing: The preprocessing of the images that its weights were trained on.
        unused: A pattern of the names of pretrained weights that the network leaves out.
    """

    preprocessing: Preprocessing
    unused: re.Pattern[str]

    def make(self, in_channels: int, num_classes: int) -> nn.Module:
        """Make the network with random weights."""

    def load_weights(self) -> dict[str, Tensor]:
        """Load the pretrained weights, which are downloaded unless the library finds them on the disk.

        Raises:
            OSError: If they can't be downloaded.
        """

    def describe_download(self) -> str:
        """Return the address of the weights' file, and the folder that the library looks in first."""


def find_network(name: str) -> Library:
    """Find a network by its name.

    Args:
        name: torchvision's name, such as ``resnet18``; or ``timm/`` and timm's, such as ``timm/convnext_tiny``.

    Raises:
        ValueError: If the library has no network of this name, or timm is not installed.
    """
    return _Timm(name.removeprefix(TIMM_PREFIX)) if name.startswith(TIMM_PREFIX) else _Torchvision(name)


class _Torchvision:
    def __init__(self, name: str) -> None:
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise ValueError(
                f"Unknown network of torchvision: {name!r}. {suggest(name, names)} timm's networks begin with "
                f"{TIMM_PREFIX}: {TIMM_PREFIX}{name}"
            )
        self.name = name
        self.weights: Any = torchvision.models.get_model_weights(name).DEFAULT
        self.unused = re.compile(r"(AuxLogits|aux\d)\..*" if name in WITH_AUXILIARY_HEADS else r"(?!)")
        images = self.weights.transforms()
        (size,), (resized,) = images.crop_size, images.resize_size
        self.preprocessing = Preprocessing(
            size, tuple(images.mean), tuple(images.std), size / resized, images.interpolation.value
        )

    def make(self, in_channels: int, num_classes: int) -> nn.Module:
        options = dict(WITH_AUXILIARY_HEADS.get(self.name, {}))
        if self.name.startswith("vit_"):
            options["image_size"] = self.preprocessing.size
        if "transform_input" in options:
            options["transform_input"] = in_channels == 3
        network = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes, **options)
        if in_channels != 3:
            replace_first_convolution(network, in_channels)
        return network

    def load_weights(self) -> dict[str, Tensor]:
        # The library's own function, as it renames the weights of older files.
        return torchvision.models.get_model(self.name, weights=self.weights).state_dict()

    def describe_download(self) -> str:
        return f"{self.weights.url} (torchvision looks for this file in {Path(torch.hub.get_dir(), 'checkpoints')})"


class _Timm:
    unused = re.compile(r"(?!)")

    def __init__(self, name: str) -> None:
        try:
            import timm
        except ImportError as error:
            raise ValueError(
                f"The network {TIMM_PREFIX}{name} needs the package timm: pip install 'lightning-adabelief[timm]'"
            ) from error
        if not timm.is_model(name):
            raise ValueError(f"Unknown network of timm: {name!r}. {suggest(name, timm.list_models())}")
        self.name = name
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        if "." in name and name not in known:
            raise ValueError(f"timm has no weights called {name!r}. {suggest(name, known)}")
        config = timm.get_pretrained_cfg(name)
        assert config is not None, "each of timm's networks has one"
        self.config = config
        images = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
        self.preprocessing = Preprocessing(
            images["input_size"][-1], images["mean"], images["std"], images["crop_pct"], images["interpolation"]
        )

    def make(self, in_channels: int, num_classes: int) -> nn.Module:
        import timm

        return timm.create_model(self.name, in_chans=in_channels, num_classes=num_classes)

    def load_weights(self) -> dict[str, Tensor]:
        import timm

        return timm.create_model(self.name, pretrained=True).state_dict()

    def describe_download(self) -> str:
        if not self.config.hf_hub_id:
            return f"{self.config.url} (timm looks for this file in {Path(torch.hub.get_dir(), 'checkpoints')})"
        from huggingface_hub.constants import HF_HUB_CACHE

        address = f"https://huggingface.co/{self.config.hf_hub_id}/resolve/main/model.safetensors"
        return f"{address} (timm looks for it in {HF_HUB_CACHE})"
