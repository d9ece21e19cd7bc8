"""Checkpoints' files: read without running code in them, and refused in words where they are none."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

LIGHTNINGS_WORDS = ("best", "last", "hpc")
"""Values of ``--ckpt_path`` that are no files."""

FILES_OF_SHARDS = (".metadata", "meta.pt", "latest", "checkpoint")
"""Files of the folder that a strategy writes which shards: FSDP's, and DeepSpeed's."""

WHAT_IS_TAKEN = "Give a file that ModelCheckpoint or Trainer.save_checkpoint wrote"

KEYS = {
    "state_dict": dict,
    "pytorch-lightning_version": str,
    "callbacks": dict,
    "hyper_parameters": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
"""From the keys of a checkpoint to the types of their values."""

NEEDED = ("state_dict", "pytorch-lightning_version")
NEEDED_TO_TRAIN = ("loops", "optimizer_states", "lr_schedulers")


class CheckpointError(ValueError):
    """The error of a file that is no checkpoint, or none that the command can use."""


def check_checkpoint(path: Any, command: str, weights_only: bool = True) -> None:
    """Read a checkpoint, and refuse one that Lightning could not load; no code in it is run.

    Args:
        path: The value of ``--ckpt_path``. None, Lightning's own words and addresses of the net are left to it.
        command: fit, validate, test or predict.
        weights_only: False where the user has told Lightning to run code in the file: then it is left to it.

    Raises:
        CheckpointError: If the file can't be used; the message says why, and what is taken.
        OSError: If it is a folder, or can't be read.
    """
    if path is None or path in LIGHTNINGS_WORDS or "://" in str(path) or str(path).startswith("registry"):
        return
    if not Path(path).exists():
        raise CheckpointError(f"There is no checkpoint {path}. {WHAT_IS_TAKEN}")
    if Path(path).is_dir():
        if not any(Path(path, name).exists() for name in FILES_OF_SHARDS):
            raise CheckpointError(f"{path} is a folder, not of a checkpoint in shards. {WHAT_IS_TAKEN}")
        return
    if weights_only:
        content = read_checkpoint(path)
        if command == "fit":
            _check_training_state(path, content)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read one of Lightning's checkpoints to the CPU, without running code in it.

    Args:
        path: The file; its tensors are read from it when they are used.

    Raises:
        CheckpointError: If it is none; the message says what it is.
        OSError: If it can't be read.
    """
    content = _load(Path(path))
    _check_content(Path(path), content)
    return content


def explain_other_network(report: str) -> str:
    """Shorten torch's report of a state dict that does not fit.

    Args:
        report: The text of the error that ``load_state_dict`` raised.

    Returns:
        The rest of a line that begins with the file's name: how many weights are missing, unknown or of another
        shape, with an example of each.
    """
    findings = []
    for heading, phrase in {"Missing": "it lacks", "Unexpected": "it has besides"}.items():
        found = re.search(rf"{heading} key\(s\) in state_dict: (.*)", report)
        if found:
            names = re.findall(r'"([^"]+)"', found[1])
            findings.append(f"{phrase} {names[0]}{_count_others(names)}")
    shapes = re.findall(
        r"size mismatch for ([^:]+): copying a param with shape torch.Size\((\[.*?\])\).*?torch.Size\((\[.*?\])\)",
        report,
    )
    if shapes:
        name, in_file, in_model = shapes[0]
        findings.append(f"{name}{_count_others(shapes)}: {in_file} in it and {in_model} in the config's")
    return f"is of another network than the config's: {', '.join(findings) or report}"


def _count_others(names: list[Any]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _load(path: Path) -> Any:
    """Load a file, without running code in it."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise CheckpointError(f"{path} is empty. {WHAT_IS_TAKEN}")
    is_zip = zipfile.is_zipfile(path)
    if start.startswith(b"PK") and not is_zip:
        raise CheckpointError(f"{path} is cut off: its end is missing. Give another checkpoint of the run")
    if is_zip:
        _check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", str(error))
        if not found:
            raise CheckpointError(f"{path} is no checkpoint of Lightning. {WHAT_IS_TAKEN}") from error
        raise CheckpointError(
            f"{path} is not loaded, because it could run code: it holds {found[1]}. "
            f"Where it is a class of your own, allow it in its module: torch.serialization.add_safe_globals([...])"
        ) from error
    except OSError:
        raise
    except Exception as error:  # as the unpickler raises on bytes that mean nothing to it
        raise CheckpointError(f"{path} is no checkpoint of Lightning. {WHAT_IS_TAKEN}") from error


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            raise CheckpointError(f"{path} is an archive of other files, no checkpoint. {WHAT_IS_TAKEN}")
        try:
            damaged = archive.testzip()  # torch does not look at the checksums
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            damaged = str(error)
    if damaged:
        raise CheckpointError(f"{path} is damaged, in {damaged}. Give another checkpoint of the run")


def _check_content(path: Path, content: Any) -> None:
    """Raise an error unless the content is that of one of Lightning's checkpoints."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no checkpoint of Lightning. {WHAT_IS_TAKEN}")
    missing = [key for key in NEEDED if key not in content]
    if missing:
        is_weights = content and all(isinstance(value, torch.Tensor) for value in content.values())
        what = f"the weights of a module alone ({next(iter(content))} and so on)" if is_weights else "other data"
        raise CheckpointError(f"{path} holds {what}, no checkpoint of Lightning. {WHAT_IS_TAKEN}")
    for key, kind in KEYS.items():
        if not isinstance(content.get(key, kind()), kind):
            raise CheckpointError(
                f"{path} is no checkpoint of Lightning: its {key} is a {type(content[key]).__name__}, "
                f"not a {kind.__name__}. {WHAT_IS_TAKEN}"
            )
    if not re.match(r"\d+\.\d+", content["pytorch-lightning_version"]):
        version = content["pytorch-lightning_version"]
        raise CheckpointError(f"{path} is of no known version of Lightning: {version!r}. {WHAT_IS_TAKEN}")


def _check_training_state(path: Any, content: Mapping[str, Any]) -> None:
    if any(key not in content for key in NEEDED_TO_TRAIN) or "fit_loop" not in content["loops"]:
        raise CheckpointError(
            f"{path} holds weights, but not how far their training was (save_weights_only): it can't go on from there. "
            "Give another checkpoint of the run, such as last.ckpt; test, validate and predict take this one"
        )
    if not all(isinstance(state, dict) and "state" in state for state in content["optimizer_states"]):
        raise CheckpointError(f"{path} holds states of optimizers that are none. Give another checkpoint of the run")
