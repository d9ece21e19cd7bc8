"""Files of weights, as people have them."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_adabelief.recipes.image_classification.weights_file import read_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)


NAMES = Net().state_dict().keys()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "network.body.", "model.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_weights_are_found_under_a_key_and_behind_a_prefix(prefix, key, tmp_path):
    state = Net().state_dict()
    saved = {prefix + name: value for name, value in state.items()} | {"other.metric": torch.zeros(2), "note": "x"}
    torch.save(saved if key is None else {key: saved, "epoch": 3}, tmp_path / "x.pth")
    read = read_weights(tmp_path / "x.pth", NAMES)
    assert read.keys() == state.keys() | ({"other.metric"} if not prefix else set())
    assert all(torch.equal(read[name], state[name]) for name in NAMES)


def test_safetensors_are_read(tmp_path):
    state = Net().state_dict()
    save_file(state, tmp_path / "x.safetensors")
    assert read_weights(str(tmp_path / "x.safetensors"), NAMES).keys() == state.keys()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.norm1.weight"),
        ("encoder.layers.encoder_layer_3.mlp.linear_2.bias", "encoder.layers.encoder_layer_3.mlp.3.bias"),
    ],
)
def test_names_of_torchvisions_older_files_are_those_of_its_modules(old, new, tmp_path):
    torch.save({old: torch.zeros(1)}, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth", [new]).keys() == {new}


class NotWeights:
    pass


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save(Net(), path), "is not loaded: .* could run code. Save the network's weights alone"),
        (
            lambda path: path.write_bytes(pickle.dumps(NotWeights(), protocol=2)),
            "is not loaded: it is no file of torch.save, or",
        ),
        (lambda path: path.write_bytes(b""), "can't be read as a file of torch.save"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "can't be read as a file of torch.save"),
        (lambda path: torch.save({"epoch": 1}, path), "holds no weights. Give a file of a network's state_dict"),
        (lambda path: torch.save([1, 2], path), "holds no weights"),
        (lambda path: torch.save({"conv.weight": torch.zeros(1)}, path), "is of another network: it has conv.weight"),
    ],
    ids=["module", "pickle", "empty", "cut off", "no weights", "list", "another network"],
)
def test_files_that_are_not_the_networks_weights_are_refused_by_name(write, message, tmp_path):
    path = Path(tmp_path / "x.pth")
    write(path)
    with pytest.raises(ValueError, match=f"{path} {message}"):
        read_weights(path, NAMES)


def test_a_damaged_safetensors_file_is_refused_by_name(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no header at all")
    with pytest.raises(ValueError, match="x.safetensors can't be read as a safetensors file"):
        read_weights(tmp_path / "x.safetensors", NAMES)
