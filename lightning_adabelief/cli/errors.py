"""Errors in words: those of the operating system, and those of libraries before a training has begun."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from pathlib import Path

CHECKING_PACKAGES = (
    "lightning_adabelief.",
    "lightning.",
    "lightning_fabric.",
    "pytorch_lightning.",
    "jsonargparse.",
    "torch.optim.",
)
"""Packages whose errors say what to do. Each ends in a dot: ``lightning_own`` is the user's."""

REMEDIES = {
    errno.ENOSPC: "Free some space there, or write elsewhere",
    errno.EDQUOT: "Free some of your quota there, or write elsewhere",
    errno.EFBIG: "Write to where larger files are allowed",
    errno.EROFS: "Write elsewhere: this is read-only",
    errno.EACCES: "Give a path that you have access to",
    errno.EPERM: "Give a path that you have access to",
    errno.ENOTDIR: "A file stands where a folder is needed: give another path",
    errno.ENOENT: "Give a path that exists",
    errno.EISDIR: "Give a file",
}
"""From the number of an error of the operating system to what to do."""

MAX_LENGTH = 400
"""Characters of a library's message that are told."""


class EarlyError(RuntimeError):
    """The error of a library on what a config has given it, before anything was trained."""


def is_mendable(error: Exception) -> bool:
    """Return True if an error's message says all: it is about files, or raised by a check of arguments.

    Any other, such as a ValueError of the user's own module, keeps its traceback.
    """
    if isinstance(error, OSError) or type(error).__name__ == "MisconfigurationException":
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = f"{frame.f_globals.get('__name__', '')}."
    return isinstance(error, (ValueError, RuntimeError)) and raised_in.startswith(CHECKING_PACKAGES)


def explain_os_error(error: OSError) -> str:
    """Return the path, what is wrong with it and what to do; the error's own text where it names no path."""
    if error.filename is None or error.strerror is None:
        return str(error)
    remedy = REMEDIES.get(error.errno or 0)
    return f"{error.filename}: {error.strerror}{f'. {remedy}' if remedy else ''}"


def explain_early_error(error: Exception) -> str:
    """Return the text of an error that a library has raised before the training began.

    Args:
        error: The error.

    Returns:
        What it says, with its kind, and how to see where it was raised.
    """
    lines = str(error).strip().splitlines()
    if lines and lines[0].startswith("Caught ") and "worker process" in lines[0]:  # and then a traceback
        lines = [lines[-1].removeprefix(f"{type(error).__name__}: ")]
    text = " ".join(" ".join(lines).split())[:MAX_LENGTH].rstrip(".") or "no message"
    return (
        f"{type(error).__name__} before anything was trained: {text}. "
        "Compare the config with 'adabelief show digits-cnn'; --debug shows where it was raised"
    )


def find_workers_error(error: Exception) -> Exception | None:
    """Return the error that this package has raised in a process that loads data; None if ``error`` is another.

    torch raises it anew in the main process, with the traceback of the worker as its text.
    """
    lines = str(error).strip().splitlines()
    if not lines or not re.match(r"Caught \w+ in DataLoader worker process", lines[0]):
        return None
    raised_in = [line.strip() for line in lines if line.strip().startswith('File "')]
    if not raised_in or not raised_in[-1].startswith(f'File "{Path(__file__).parents[1]}'):
        return None
    return type(error)(lines[-1].removeprefix(f"{type(error).__name__}: "))


def is_from_users_code(error: BaseException) -> bool:
    """Return True if code took part in an error that is neither ours nor of an installed package."""
    paths = sysconfig.get_paths()
    installed = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed.append(str(Path(__file__).parents[1]))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(("<", *installed)) and frame.f_globals.get("__name__") != "__main__":
            return True
    return False
