"""Killed runs that are resumed, compared with an uninterrupted one: weights, optimizers, random states and logs.

Each recipe is run as a user runs it, by ``adabelief fit``, with a CSVLogger beside its own logger. Then it is run
again and killed by SIGKILL, in turn at a random moment and while a checkpoint is written, and resumed from
``last.ckpt``, or begun again where there is none, until it has been killed often enough and is done.

    python benchmarks/resume.py digits-cnn digits-wgan --kills 20 --write
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from common import make_parser, markdown_table, provenance, publish
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adabelief.recipes.catalog import find

HEADER = [
    "recipe",
    "kills",
    "of these, writing a checkpoint",
    "broken checkpoints",
    "resumed runs",
    "weights differ",
    "optimizer states differ",
    "random states differ",
    "rows of metrics.csv that differ",
    "rows of belief.csv that differ",
    "TensorBoard's scalars that differ",
]

POLL_INTERVAL = 1e-4
"""Seconds between two looks for a checkpoint that is being written."""

TIMEOUT = 300.0
"""Seconds after which a run that is to be killed, and has logged nothing, is taken for hung."""


@dataclass
class Kills:
    """Counts of a recipe's killed runs, and how the resumed ones differ.

    Attributes:
        total: Processes killed.
        while_saving: Of these, how many were writing a checkpoint.
        broken: Checkpoints that could not be read after a kill.
        differences: Differences of each resumed run to the uninterrupted one, in the order of :data:`HEADER`.
    """

    total: int = 0
    while_saving: int = 0
    broken: int = 0
    differences: list[list[int]] = field(default_factory=list)


def main() -> None:
    """Kill and resume the recipes, and publish how far the resumed runs differ."""
    parser = make_parser(__doc__)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="names of recipes, whose data are here")
    parser.add_argument("--kills", type=int, default=20, help="kills of each recipe (default: 20)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each run (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory() as folder:
            kills = kill_and_resume(name, Path(folder), arguments.kills, arguments.epochs, arguments.seed)
        sums = [str(sum(column)) for column in zip(*kills.differences, strict=True)]
        counts = [kills.total, kills.while_saving, kills.broken, len(kills.differences)]
        rows.append([name, *map(str, counts), *sums])
    document = (
        f"Runs of {arguments.epochs} epochs, killed and resumed, differ from the uninterrupted ones in:\n\n"
        f"{markdown_table(HEADER, rows)}\n"
        "Everything is compared to the bit, and rows that stand twice or are missing count as differing. A recipe that "
        "does not validate after each epoch does so after every second one.\n\n"
        f"{provenance('torch', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, "reliability-resume.md", arguments.write)


def kill_and_resume(name: str, folder: Path, kills: int, epochs: int, seed: int = 0, **trainer: Any) -> Kills:
    """Run a recipe uninterrupted, then killed and resumed until it was killed often enough.

    Args:
        name: The recipe.
        folder: An empty folder for its runs.
        kills: Number of kills.
        epochs: Epochs of each run.
        seed: Seed of the moments.
        trainer: Further options of the config's Trainer.

    Returns:
        What was found.
    """
    moments = random.Random(seed)
    config = write_config(name, folder, epochs, trainer)
    whole = folder / "whole"
    start(config, whole).wait()
    first, last = (choose(path.stat().st_mtime for path in list_logs(whole)) for choose in (min, max))
    found = Kills()
    while found.total < kills or not found.differences:
        run = folder / f"run-{len(found.differences)}"
        while not run_until_killed(config, run, found, kills, moments, (last - first) / 5):
            found.broken += sum(map(is_broken, run.rglob("*.ckpt")))
        found.differences.append(compare(whole, run))
    return found


def write_config(name: str, folder: Path, epochs: int, trainer: dict[str, Any]) -> Path:
    """Write a recipe's config for a short run with a CSVLogger as well."""
    config = yaml.safe_load(find(name).path.read_text(encoding="utf-8"))
    interval = config["trainer"].get("check_val_every_n_epoch", 1)
    csv_logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "name": "csv"}}
    config["trainer"] |= {
        "max_epochs": epochs,
        "check_val_every_n_epoch": min(interval, 2),
        "enable_progress_bar": False,
        "logger": [config["trainer"]["logger"], csv_logger],
        **trainer,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def start(config: Path, folder: Path, checkpoint: Path | None = None) -> subprocess.Popen[bytes]:
    """Start ``adabelief fit`` in a folder; its output is added to ``output.txt`` there."""
    folder.mkdir(exist_ok=True)
    words = ["fit", "--config", str(config)]
    if checkpoint is not None:
        words += ["--ckpt_path", str(checkpoint.relative_to(folder))]
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "lightning_adabelief", *words], cwd=folder, stdout=output, stderr=output
        )


def run_until_killed(
    config: Path, folder: Path, found: Kills, kills: int, moments: random.Random, longest: float
) -> bool:
    """Begin or resume a run; kill it, unless there were kills enough.

    Returns:
        True if the run has come to its end.

    Raises:
        RuntimeError: If it fails by itself; it quotes the end of its output.
    """
    began = time.time()
    with start(config, folder, find_last(folder)) as process:  # waited for, also after an error
        if found.total < kills:
            wait_for_training(process, folder, began)
            wait_for_moment(process, folder, began, found.total % 2 == 1, moments, longest)
            was_saving = is_saving(folder, began)
            if process.poll() is None:
                process.kill()
                found.total += 1
                found.while_saving += was_saving
                return False
    if process.returncode:
        raise RuntimeError(f"{config.stem} failed:\n{(folder / 'output.txt').read_text(encoding='utf-8')[-3000:]}")
    return True


def wait_for_training(process: subprocess.Popen[bytes], folder: Path, began: float) -> None:
    """Wait until a run has written to its logs: its training is about to begin."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_mtime >= began for path in list_logs(folder)):
            return
        time.sleep(0.01)


def wait_for_moment(
    process: subprocess.Popen[bytes],
    folder: Path,
    began: float,
    is_aimed: bool,
    moments: random.Random,
    longest: float,
) -> None:
    """Wait for a random time, or where a kill is aimed at it, until one of the next checkpoints is being written."""
    seconds = TIMEOUT if is_aimed else moments.uniform(0, longest)
    number = moments.randint(1, 4)
    deadline = time.monotonic() + seconds
    was_saving = False
    while process.poll() is None and time.monotonic() < deadline:
        saves = is_saving(folder, began)
        number -= saves and not was_saving
        if is_aimed and number == 0:
            return
        was_saving = saves
        time.sleep(POLL_INTERVAL)


def is_saving(folder: Path, began: float) -> bool:
    """Return True if the run that began then is writing a checkpoint; one killed earlier may have left a part."""
    for part in folder.glob("logs/*/*/checkpoints/*.part"):
        with suppress(FileNotFoundError):  # it has been renamed since
            if part.stat().st_mtime >= began:
                return True
    return False


def list_versions(folder: Path) -> list[Path]:
    """Return the latest version of each logger that has one: earlier ones were killed before their first checkpoint."""
    versions = (list(place.glob("version_*")) for place in sorted(folder.glob("logs/*")))
    return [
        max(found, key=lambda version: int(version.name.removeprefix("version_")))
        for found in versions
        if found  # a logger makes its own folder first, a moment before that of its version
    ]


def list_logs(folder: Path) -> list[Path]:
    """Return the files of TensorBoard in a run's folder."""
    return [path for version in list_versions(folder) for path in version.glob("events.out.tfevents.*")]


def find_last(folder: Path) -> Path | None:
    """Return a run's latest checkpoint, if there is one."""
    found = [version / "checkpoints" / "last.ckpt" for version in list_versions(folder)]
    return next(filter(Path.is_file, found), None)


def is_broken(checkpoint: Path) -> bool:
    """Return True if a checkpoint can't be read."""
    try:
        torch.load(checkpoint, weights_only=True)
    except Exception:
        return True
    return False


def compare(whole: Path, run: Path) -> list[int]:
    """Count what differs between an uninterrupted run and a resumed one.

    Returns:
        The number of tensors and rows, in the order of :data:`HEADER`.
    """
    saved = [torch.load(find_last(folder), weights_only=True) for folder in (whole, run)]
    states = [
        count_differences(*(flatten({key: checkpoint.get(key) for key in keys}) for checkpoint in saved))
        for keys in (("state_dict",), ("optimizer_states", "lr_schedulers"), ("exact_resume", "gan"))
    ]
    return [
        *states,
        *(count_differences(*(read_rows(folder, name) for folder in (whole, run))) for name in ("metrics", "belief")),
        count_differences(*(read_scalars(folder) for folder in (whole, run))),
    ]


def count_differences(expected: dict[Any, bytes], got: dict[Any, bytes]) -> int:
    """Count the keys of which two dicts don't have the same value, or only one has any; name some of them."""
    different = [key for key in expected | got if expected.get(key) != got.get(key)]
    for key in different[:3]:
        print(f"{key}: {expected.get(key)!r:.200} and, resumed, {got.get(key)!r:.200}", file=sys.stderr)
    return len(different)


def flatten(tree: Any, path: str = "") -> dict[str, bytes]:
    """Return the leaves of nested dicts, lists and tuples, as bytes by their paths."""
    if isinstance(tree, torch.Tensor):
        return {path: f"{tree.dtype} {tuple(tree.shape)} ".encode() + tree.cpu().numpy().tobytes()}
    if not isinstance(tree, dict | list | tuple):
        return {path: repr(tree).encode()}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {key: leaf for name, value in items for key, leaf in flatten(value, f"{path}/{name}").items()}


def read_rows(folder: Path, name: str) -> dict[int, bytes]:
    """Return the lines of a run's table by their numbers."""
    paths = [path for version in list_versions(folder) for path in version.glob(f"{name}.csv")]
    return dict(enumerate(b"".join(path.read_bytes() for path in paths).splitlines()))


def read_scalars(folder: Path) -> dict[tuple[str, int], bytes]:
    """Return what TensorBoard shows of a run: of each tag, step and value by their places."""
    scalars: dict[tuple[str, int], bytes] = {}
    for place in {path.parent for path in list_logs(folder)}:
        accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
        for tag in accumulator.Tags()["scalars"]:
            for event in accumulator.Scalars(tag):
                position = sum(key[0] == tag for key in scalars)
                scalars[tag, position] = f"{event.step} {event.value!r}".encode()
    return scalars


if __name__ == "__main__":
    main()
