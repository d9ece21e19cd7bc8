"""Files of a network's weights, as people have them: of a library, of another training, of a checkpoint."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KEYS_OF_WEIGHTS = ("state_dict", "model_state_dict", "model")
"""Keys under which files of more than weights keep them."""

OLD_NAMES = {
    re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"): r"\1\2",
    re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."): r"\1.0.",
    re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."): r"\1.3.",
}
"""Names in torchvision's files of DenseNets and vision transformers, which are older than its modules."""


def read_weights(path: str | Path, names: Collection[str]) -> dict[str, Tensor]:
    """Read the weights of a network from a file, without running code in it.

    The file is one of ``torch.save`` or of safetensors: a state dict, or a dict that has it under a key such as
    ``state_dict``. Names may have a prefix, as those of DistributedDataParallel (``module.``) and of a
    LightningModule (``network.body.``) do; other weights of such a module are left out.

    Args:
        path: The file.
        names: The names of the network's weights, without a prefix.

    Returns:
        From names without a prefix to weights on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read, holds no weights, or none of these names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}, given as the network's weights. Give one, or 'default' for the library's own, "
            "or null for random ones"
        )
    state = {name: value for name, value in _find_state_dict(_load(path)).items() if isinstance(value, Tensor)}
    state = {_renew_name(name): value for name, value in state.items()}
    if not state:
        raise ValueError(f"{path} holds no weights. Give a file of a network's state_dict()")
    prefix = _find_prefix(state, names)
    if prefix is None:
        raise ValueError(
            f"{path} is of another network: it has {next(iter(state))} and no {next(iter(names))}. Give weights of "
            "this network, or name the one that they are of"
        )
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError as error:
            raise ValueError(f"{path} needs the package safetensors: pip install safetensors") from error
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} can't be read as a safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not loaded: it is no file of torch.save, or it holds more than weights and could run code. "
            "Save the network's weights alone: torch.save(network.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} can't be read as a file of torch.save: {error}") from error


def _find_state_dict(content: Any) -> Mapping[str, Any]:
    """Return the dict of weights, under a key of the file's content or the content itself."""
    if not isinstance(content, Mapping):
        return {}
    return next((content[key] for key in KEYS_OF_WEIGHTS if isinstance(content.get(key), Mapping)), content)


def _renew_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = old.sub(new, name)
    return name


def _find_prefix(state: Mapping[str, Tensor], names: Collection[str]) -> str | None:
    """Return what stands before most of the names in a state dict; None if none of them is there."""
    prefixes = Counter(
        of_file.removesuffix(name) for of_file in state for name in _list_endings(of_file) if name in names
    )
    return prefixes.most_common(1)[0][0] if prefixes else None


def _list_endings(name: str) -> list[str]:
    """Return a name, and what is left of it after each of its dots."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
