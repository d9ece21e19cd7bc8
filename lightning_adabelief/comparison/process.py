"""A trial's process: a plain ``adabelief fit`` of its config."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lightning_adabelief.comparison.trial import Outcome

OUTPUT = "output.txt"
"""The file in a trial's folder that has what the process printed."""

MAX_ERROR_LINES = 15

PARENT = "ADABELIEF_PARENT"
"""The environment variable that tells a trial's process which process it must not outlive."""

PR_SET_PDEATHSIG = 1
"""Linux's prctl(2): the signal that a process gets when its parent dies."""


def make_command(folder: Path) -> list[str]:
    """Return the command that runs the trial of a folder, with the Python that runs this."""
    return [sys.executable, "-m", "lightning_adabelief", "fit", "--config", str(folder / "config.yaml")]


def run_trial(
    folder: Path,
    threads: int | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Outcome:
    """Run a trial, from the folder that this process is in, and wait for its end.

    What an earlier run of it left is removed, and in the end the checkpoints: hundreds of runs would fill a disk.

    Args:
        folder: The trial's, with its ``config.yaml``. The process prints into ``output.txt`` there.
        threads: The number of threads that it computes with; None for torch's choice.
        on_start: Called with the process when it has started.

    Returns:
        What :class:`~lightning_adabelief.comparison.record.TrialRecord` has written, if the process ended well. A run
        that diverged may fail in its test, and is ``"diverged"``; any other that failed is ``"crashed"``, with the last
        lines that it printed.
    """
    _remove_earlier_run(folder)
    with (folder / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            make_command(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_make_environment(threads),
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent, which ends the group
        )
    try:
        on_start(process)
        process.wait()
    finally:
        _kill_group(process)
        for checkpoint in folder.rglob("*.ckpt"):
            checkpoint.unlink()
    return _read_outcome(folder, process.returncode)


def die_with_parent() -> None:
    """Let the system kill this process when the one that :data:`PARENT` names dies: only Linux can.

    A worker that is killed by SIGKILL can't stop its trial, which would go on beside the one that replaces it. The
    trial asks by itself, for what runs between fork and exec must not take a lock that another thread held, and
    Python warns of all that does.
    """
    parent = os.environ.pop(PARENT, None)  # processes that this one starts have another parent
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it has died already
        os._exit(1)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of those that it has started, such as other ranks."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _make_environment(threads: int | None) -> dict[str, str]:
    return {**os.environ, PARENT: str(os.getpid()), **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}


def _remove_earlier_run(folder: Path) -> None:
    """Remove an earlier run's outcome and its logs, to which Lightning's loggers would not add."""
    (folder / "outcome.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _read_outcome(folder: Path, returncode: int) -> Outcome:
    try:
        written = Outcome.from_json((folder / "outcome.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        written = Outcome("crashed")
    is_killed = returncode < 0 or returncode > 128
    if written.status != "crashed" and (returncode == 0 or (written.status == "diverged" and not is_killed)):
        return written
    lines = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    error = [_explain_end(returncode), *lines[-MAX_ERROR_LINES:]]
    return dataclasses.replace(written, status="crashed", error="\n".join(error))


def _explain_end(returncode: int) -> str:
    if returncode < 0:
        hint = ", as it is when memory runs out" if returncode == -signal.SIGKILL else ""
        return f"The process was ended by {signal.Signals(-returncode).name}{hint}. It had printed:"
    return f"The process ended with status {returncode}. It had printed:"
