"""Writing of files, so that a reader finds the old file or the whole new one."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Replace a file at once, or leave it as it was: the new one is written beside it, and renamed.

    Folders that are missing are made. A process that is killed leaves ``<name>.part``, which the next writer
    of the file replaces.

    Args:
        path: The file, on a local disk.

    Yields:
        The path to write to, in the same folder; on leaving the ``with`` block it takes the place of the file.

    Raises:
        OSError: If it can't be written; the error names ``path``, and the old file is untouched.

    Example:
        >>> from lightning_adabelief.files import replace_file
        >>> with replace_file("score.txt") as part:
        ...     _ = part.write_text("0.99")
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        _make_folder(path.parent)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # some file systems tell of a full disk only now
        os.replace(part, path)
    except BaseException as error:
        _remove(part)
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error  # a full disk names no file
        raise


def check_writable(folder: str | Path) -> None:
    """Make a folder if need be, and write a file into it, which is removed again.

    Raises:
        OSError: If that is impossible; the error names the folder.
    """
    probe = Path(folder) / f".writable-{os.getpid()}"
    try:
        _make_folder(probe.parent)
        probe.write_bytes(b"0")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(folder)) from error
    finally:
        _remove(probe)


def find_free_path(path: Path, is_taken: Callable[[Path], bool] = Path.exists) -> Path:
    """Find a path that is not taken yet.

    Args:
        path: The path to begin with, such as ``predictions.csv``.
        is_taken: A function from a path to True where it is taken (default: where it exists).

    Returns:
        The path itself, or the first free one of ``predictions_1.csv``, ``predictions_2.csv``, ...
    """
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(1))
    return next(free for free in itertools.chain([path], numbered) if not is_taken(free))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which would read as if to exist were wrong
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _remove(path: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
