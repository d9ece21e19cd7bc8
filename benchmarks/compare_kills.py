"""Does a comparison that is killed again and again end with the table of an undisturbed one?

    python benchmarks/compare_kills.py --write

A small comparison on ``digits-cnn`` is run to its end, and then once more in another folder, where it is killed by
SIGKILL at random moments: in turn the command with its trials, the command alone, and one trial. After each kill of
the command the same command is given again.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import make_parser, markdown_table, provenance, publish

OPTIONS = [
    "--optimizers=adabelief,adamw,sgd",
    "--lr=0.3,1,3",
    "--seeds=3",
    "--jobs=2",
    *("--set", "trainer.max_epochs=3", "model.lr_scheduler.T_max=3"),
]
MEASURED_TIMES = ("seconds", "optimizer_share", "peak_memory", "command")
"""Columns of ``results.csv`` that two runs of one command need not have in common."""

VICTIMS = ("the command and its trials", "the command alone", "one trial")


def main() -> None:
    """Run both comparisons, and publish how they differ."""
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder, "undisturbed"), Path(folder, "killed")
        start = time.monotonic()
        start_comparison(undisturbed).wait()
        seconds = time.monotonic() - start
        kills = run_and_kill(killed, arguments.kills, seconds, random.Random(arguments.seed))
        expected, found = read_table(undisturbed), read_table(killed)
    different = [name for name in expected if found.get(name) != expected[name]]
    rows = [[victim, str(kills.count(victim))] for victim in VICTIMS]
    document = (
        f"# A comparison killed {len(kills)} times\n\n"
        f"{markdown_table(['killed', 'times'], rows)}\n"
        f"Of {len(expected)} runs, {len(different)} have another result than in the undisturbed comparison, and "
        f"{len(found) - len(expected)} are there beside them. Every column of `results.csv` but times and memory was "
        "compared.\n\n"
        f"{provenance('torch', 'optuna', 'lightning-adabelief')}"
    )
    publish(document, "compare-kills.md", arguments.write)


def start_comparison(out: Path) -> subprocess.Popen[bytes]:
    """Start the command, as the leader of a process group."""
    words = [sys.executable, "-m", "lightning_adabelief", "compare", "digits-cnn", *OPTIONS, f"--out={out}"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)


def run_and_kill(out: Path, count: int, seconds: float, moments: random.Random) -> list[str]:
    """Run a comparison to its end, and kill something of it a number of times.

    Args:
        out: The comparison's folder.
        count: The number of kills.
        seconds: Time that the comparison takes undisturbed.
        moments: Draws the times.

    Returns:
        What was killed.
    """
    kills: list[str] = []
    process = start_comparison(out)
    while len(kills) < count:
        time.sleep(moments.uniform(0.5, 1.5) * seconds / count)
        if process.poll() is not None:
            raise RuntimeError(f"The comparison ended after {len(kills)} of {count} kills. Give fewer --kills")
        victim = VICTIMS[len(kills) % len(VICTIMS)]
        trials = list_children(process.pid)
        if victim == "one trial" and not trials:
            continue
        if victim != "the command alone":
            for trial in trials[: 1 if victim == "one trial" else None]:
                os.kill(trial, signal.SIGKILL)
        if victim != "one trial":
            process.kill()
            process.wait()
            process = start_comparison(out)
        kills.append(victim)
    if process.wait() != 0:
        raise RuntimeError(f"The comparison failed with status {process.returncode}")
    return kills


def list_children(pid: int) -> list[int]:
    """List the processes that a process has started (Linux)."""
    text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(word) for word in text.split()]


def read_table(out: Path) -> dict[str, dict[str, str]]:
    """Read ``results.csv`` without its times, by the trials' names."""
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: {key: cell for key, cell in row.items() if key not in MEASURED_TIMES} for row in rows}


if __name__ == "__main__":
    main()
