"""SIGTERM and Ctrl-C: a training leaves a checkpoint, and every command a status that tells what ended it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHELLS_OFFSET = 128
"""The number that a shell adds to a signal's, for the status of a command that it ended."""


class StoppedBySignal(SystemExit):
    """The end of a run that a signal has stopped, with the status that a shell gives it: 143 or 130.

    Args:
        signum: The signal.
        report: What the run has left, and how to go on.
    """

    def __init__(self, signum: int, report: str = "") -> None:
        super().__init__(SHELLS_OFFSET + signum)
        self.message = f"Stopped by {name_signal(signum)}. {report}".rstrip()


class SignalHandler:
    """Stop the process at a signal: at once, or, while it is training, when the training asks.

    A second signal ends the process on the spot.

    Attributes:
        received: The first signal, or None.
        is_training: True while the training looks at ``received`` after each batch.
        ranks: The processes of other ranks that this one has started.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.is_training = False
        self.ranks: Sequence[Popen[Any]] = ()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.received is not None:
            for process in self.ranks:
                process.kill()
            os._exit(SHELLS_OFFSET + signum)
        self.received = signum
        if not self.is_training:
            raise StoppedBySignal(signum)
        if hasattr(signal, "SIGCHLD"):
            # The signal may have ended the data loader's workers too. Of that torch would raise an error from here,
            # in the middle of a step; the loader itself notices it between batches.
            signal.signal(signal.SIGCHLD, lambda *_: None)
        if is_first_rank():
            _print_line(f"{name_signal(signum)}: a checkpoint is saved after this batch. A second one ends at once")

    def install(self) -> None:
        """Take the place of other handlers; not in a thread, where Python allows none."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self)


handler = SignalHandler()
"""The handler of this process; :func:`handle_signals` installs it."""


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGINT within a ``with`` block, and restore the handlers from before."""
    handler.received, handler.is_training, handler.ranks = None, False, ()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handler.install()
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def name_signal(signum: int) -> str:
    """Return a signal's name as users know it."""
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def is_first_rank() -> bool:
    """Return True unless the environment tells that another process of this run prints what there is to say."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def _print_line(text: str) -> None:
    """Print below a progress bar, without Python's buffers: the handler may have interrupted a print."""
    try:
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())
    except (AttributeError, OSError, ValueError):  # no terminal to tell
        pass
