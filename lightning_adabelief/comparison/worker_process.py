"""The process that runs a trial, as others see it: which one it is, and whether it lives."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerProcess:
    """The process of a worker.

    Attributes:
        host: Its machine; in a container, the container.
        pid: Its number there.
        started: Its start, in the system's clock ticks, as numbers of processes are used again; "" where unknown.
        since: The time at which it took the trial, in seconds of the epoch.
        beat: The time of its last sign of life, in seconds of the epoch.
    """

    host: str
    pid: int
    started: str
    since: float
    beat: float

    @classmethod
    def current(cls) -> WorkerProcess:
        """Return this process, which takes a trial now."""
        now = time.time()
        return cls(_name_host(), os.getpid(), _read_start(os.getpid()) or "", now, now)

    def is_dead(self) -> bool:
        """Return True if it ran on this machine and does not any more; of other machines nothing is known."""
        if self.host != _name_host() or os.name != "posix":
            return False
        if self.started:
            return _read_start(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _name_host() -> str:
    """Return the machine's name, and on Linux the space that its process numbers belong to: containers have their own.

    Two containers may have one name, and see nothing of each other's processes.
    """
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _read_start(pid: int) -> str | None:
    """Return the time at which a process began; None if it has ended or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return None if state in "ZX" else start  # Z: killed, and its parent has not noticed
