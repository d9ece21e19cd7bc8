"""The files that the rows name: configs, checkpoints and folders of data, each bad in its own way."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytorch_lightning
import torch
from PIL import Image
from torch import nn

from lightning_adabelief.recipes.image_classification import SmallCNN

WHOLE = {
    "pytorch-lightning_version": pytorch_lightning.__version__,
    "state_dict": {f"network.{name}": value for name, value in SmallCNN(1, 10).state_dict().items()},
    "epoch": 1,
    "global_step": 2,
    "loops": {"fit_loop": {}},
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
}


class Malicious:
    """An object whose unpickling runs a command."""

    def __reduce__(self):
        return os.system, ("touch was_run",)


def write_files(folder: Path) -> None:
    """Write all of them into a folder."""
    for name, text in CONFIGS.items():
        Path(folder, name).write_bytes(text if isinstance(text, bytes) else text.encode())
    _write_checkpoints(folder)
    _write_data(folder)


def _nest(text: str, depth: int, start: str) -> str:
    """Write YAML in which each line holds the one before twice."""
    lines = [f"k0: &k0 {start}"]
    return "\n".join([*lines, *(f"k{i}: &k{i} {text.format(before=f'*k{i - 1}')}" for i in range(1, depth))])


CONFIGS: dict[str, str | bytes] = {
    "holds_itself.yaml": "trainer: &trainer\n  callbacks: [*trainer]\n",
    "list_bomb.yaml": _nest("[{before}, {before}]", 40, "[1, 1]"),
    "dict_bomb.yaml": _nest("{{a: {before}, b: {before}}}", 40, "{x: 1}"),
    "twice.yaml": "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
    "twice.json": '{"trainer": {"max_epochs": 1, "max_epochs": 2}}',
    "model_twice.yaml": "class_path: some.Class\nclass_path: other.Class\n",
    "deep.yaml": "[" * 1500,
    "long.yaml": "#" * 1_000_001,
    "tab.yaml": "trainer:\n\tmax_epochs: 3\n",
    "tag.yaml": "trainer: !!python/object/apply:os.system ['touch was_run']\n",
    "two_documents.yaml": "a: 1\n---\nb: 2\n",
    "unknown_alias.yaml": "trainer: *nobody\n",
    "latin.yaml": "name: \u00e9\n".encode("latin-1"),
    "utf16.yaml": "trainer: 3".encode("utf-16"),
    "empty.yaml": "",
    "words.yaml": "just words",
    "null_key.yaml": "null: 3\n",
    "bool_key.yaml": "trainer: {yes: 3}\n",
    "huge_number.yaml": f"trainer: {{max_epochs: {'9' * 5000}}}\n",
    "trainer_list.yaml": "trainer: [1]\n",
    "model_number.yaml": "model: 3\n",
    "class_list.yaml": "model: {class_path: [a]}\n",
    "arguments_list.yaml": "model: {init_args: [1]}\n",
    "callbacks_number.yaml": "trainer: {callbacks: 3}\n",
    "no_optimizer.yaml": "trainer: {max_epochs: 3}\n",
    "taken.yaml": "mine",
}


def _write_checkpoints(folder: Path) -> None:
    def save(name, content):
        torch.save(content, folder / name)

    save("whole.ckpt", WHOLE)
    whole = (folder / "whole.ckpt").read_bytes()
    Path(folder, "empty.ckpt").write_bytes(b"")
    Path(folder, "text.ckpt").write_text("not a checkpoint\n")
    Path(folder, "zeros.ckpt").write_bytes(bytes(5000))
    Path(folder, "half.ckpt").write_bytes(whole[: len(whole) // 2])
    middle = whole.index(b"PK\x01\x02") // 2
    Path(folder, "damaged.ckpt").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    Path(folder, "pickle.ckpt").write_bytes(pickle.dumps({"epoch": 1}))
    Path(folder, "malicious_pickle.ckpt").write_bytes(pickle.dumps(Malicious()))
    save("malicious.ckpt", {**WHOLE, "hyper_parameters": {"a": Malicious()}})
    with zipfile.ZipFile(folder / "archive.ckpt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    save("module.ckpt", nn.Linear(2, 2))
    save("tensor.ckpt", torch.zeros(3))
    save("state_dict.ckpt", WHOLE["state_dict"])
    save("other_data.ckpt", {"epoch": 1})
    save("weights_only.ckpt", {key: WHOLE[key] for key in ("pytorch-lightning_version", "state_dict", "callbacks")})
    save("version.ckpt", {**WHOLE, "pytorch-lightning_version": "banana"})
    save("callbacks.ckpt", {**WHOLE, "callbacks": ["BeliefMonitor"]})
    save("optimizers.ckpt", {**WHOLE, "optimizer_states": ["AdaBelief"]})
    save("foreign.ckpt", {**WHOLE, "state_dict": {"encoder.weight": torch.zeros(3)}})


def _write_data(folder: Path) -> None:
    for name in ("a_folder", "no_classes/train", "no_images/train/cat"):
        Path(folder, name).mkdir(parents=True)
    trained = [f"{root}/train/{name}" for root in ("no_pictures", "other_classes") for name in ("cat", "cow")]
    pictures = [*trained, "no_pictures/val/cat", "no_pictures/val/cow", "other_classes/val/dog"]
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, format="png")
    cut_off = picture.getvalue()[:-1000]
    for name in pictures:
        Path(folder, name).mkdir(parents=True)
        Path(folder, name, "a.png").write_bytes(cut_off)
    for name in ("texts/train/cat", "texts/train/cow"):
        Path(folder, name).mkdir(parents=True)
        Path(folder, name, "a.png").write_text("not a picture")
    Path(folder, "a_file").write_text("mine")
