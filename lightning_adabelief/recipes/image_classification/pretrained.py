"""Networks whose weights were trained on other images, to be trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_adabelief.recipes.image_classification.network_libraries import find_network
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing
from lightning_adabelief.recipes.image_classification.weights_file import read_weights

MAX_NAMES = 3
"""The most weights that an error names."""


class PretrainedNetwork(NetworkFromData):
    """A classifier of torchvision or timm with pretrained weights, and a new head for the data's classes.

    The head is new even where the pretrained one has as many classes. With images of other than 3 channels the
    first convolution is new as well.

    ``ImageClassifier`` loads the weights when a training begins; elsewhere call :meth:`load_weights`. After a state
    dict is loaded, as from a checkpoint, they are neither downloaded nor read again.

    Args:
        name: torchvision's name of the network, such as ``resnet18``; or ``timm/`` and timm's name, such as
            ``timm/convnext_tiny``, if timm is installed.
        weights: ``"default"`` for the library's own, which it downloads once; a file (see
            :func:`~lightning_adabelief.recipes.image_classification.weights_file.read_weights`); None for random ones.
        in_channels: Channels of the images; None for the data's.
        num_classes: Number of classes; None for the data's.

    Raises:
        ValueError: If the library has no network of this name, or timm is not installed.

    Attributes:
        preprocessing: The preprocessing of the images that the library's weights were trained on.

    Shape:
        Images (N, in_channels, H, W) to logits (N, num_classes).

    Example:
        >>> network = PretrainedNetwork("mobilenet_v3_small", weights=None, in_channels=3, num_classes=5)
        >>> network.preprocessing.size
        224
        >>> network(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 5])
    """

    body: nn.Module

    def __init__(
        self,
        name: str,
        weights: str | None = "default",
        in_channels: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes)
        self.name = name
        self.weights = None if weights == "None" else weights  # which jsonargparse makes of null on a command line
        self._library = find_network(name)
        self.preprocessing: Preprocessing = self._library.preprocessing
        self._has_weights = self.weights is None
        self._new_layers: set[str] = set()
        self.register_load_state_dict_post_hook(_mark_as_loaded)
        self.complete()

    @property
    def pretrained_layers(self) -> list[nn.Module]:
        """The modules that hold pretrained weights or statistics themselves; none where ``weights`` is None."""
        if self.weights is None or not self.is_complete:
            return []
        holders = {name.rpartition(".")[0] for name in self.body.state_dict()} - self._new_layers
        return [module for name, module in self.body.named_modules() if name in holders]

    def make(self, in_channels: int, num_classes: int) -> None:
        """Make the network with random weights, and find the layers that pretrained weights can't fit."""
        self.body = self._library.make(in_channels, num_classes)
        pretrained = self._make_without_weights(num_classes + 1)
        shapes = {name: weight.shape for name, weight in pretrained.state_dict().items()}
        fit = {name: weight.shape == shapes[name] for name, weight in self.body.state_dict().items()}
        self._new_layers = {name.rpartition(".")[0] for name, fits in fit.items() if not fits}

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, in_channels, H, W) into logits (N, num_classes)."""
        return self.body(images)

    def load_weights(self) -> None:
        """Load the pretrained weights into all layers but the new ones; does nothing if that is done.

        Raises:
            FileNotFoundError: If ``weights`` is a file that does not exist.
            ValueError: If the weights can't be downloaded or read, or are of another network.
        """
        assert self.is_complete, "its layers are made first"
        if self._has_weights:
            return
        assert self.weights is not None
        if self.weights == "default":
            state = self._download_weights()
        else:
            state = read_weights(self.weights, self.body.state_dict().keys())
        kept = {name: weight for name, weight in state.items() if not self._is_left_out(name)}
        self._check_weights(kept)
        self.body.load_state_dict(kept, strict=False)
        self._has_weights = True

    def _make_without_weights(self, num_classes: int) -> nn.Module:
        """Make the network for RGB images, for its shapes alone."""
        try:
            with torch.device("meta"):
                return self._library.make(3, num_classes)
        except NotImplementedError:  # of torchvision's RegNets, which compute their widths with tensors
            return self._library.make(3, num_classes)

    def _download_weights(self) -> dict[str, Tensor]:
        try:
            return self._library.load_weights()
        except OSError as error:
            raise ValueError(
                f"The weights of {self.name} could not be downloaded: {error}. Fetch "
                f"{self._library.describe_download()} and give its path as the network's weights"
            ) from error

    def _is_left_out(self, name: str) -> bool:
        return name.rpartition(".")[0] in self._new_layers or bool(self._library.unused.fullmatch(name))

    def _check_weights(self, state: dict[str, Tensor]) -> None:
        """Raise ValueError unless the weights are those of the network, without its new layers."""
        shapes = {name: tuple(weight.shape) for name, weight in self.body.state_dict().items()}
        expected = [name for name in shapes if not self._is_left_out(name)]
        # Files of before torch 0.4.1 don't count batches.
        missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
        unknown = [name for name in state if name not in shapes]
        others = [
            f"{name} (it has {tuple(weight.shape)}, the network {shapes[name]})"
            for name, weight in state.items()
            if name in shapes and weight.shape != shapes[name]
        ]
        findings = {"lacks": missing, "has besides": unknown, "has of another shape": others}
        problems = [f"it {what} {_name_first(names)}" for what, names in findings.items() if names]
        if problems:
            raise ValueError(
                f"The weights {self.weights} are not those of {self.name}: {'; '.join(problems)}. Give weights of "
                f"{self.name}, or name the network that they are of"
            )


def _mark_as_loaded(network: Any, incompatible_keys: Any) -> None:
    """Note that a state dict has been loaded, which takes the place of the pretrained weights."""
    network._has_weights = True


def _name_first(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
