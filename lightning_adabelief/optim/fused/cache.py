"""A cache of compiled libraries, of which only those are read that this user wrote and that are whole.

The folder may be shared: by ranks that start together, by machines with other CPUs, by other users. The
name of a library holds a hash of its content, and its file must belong to this user and be writable by
nobody else; any other file is as good as none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_POLL_SECONDS = 0.05
"""The time between two attempts to get a lock that another process holds."""


def cache_directory() -> Path | None:
    """Return the folder of compiled kernels.

    Returns:
        ``$LIGHTNING_ADABELIEF_CACHE_DIR``, or else ``lightning_adabelief`` in ``$XDG_CACHE_HOME``
        or in ``~/.cache``, as an absolute path; None if that needs a home, and this user has none.
    """
    own = os.environ.get("LIGHTNING_ADABELIEF_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    directory = Path(own) if own else Path(base) / "lightning_adabelief"
    try:
        return directory.expanduser().absolute()
    except (OSError, RuntimeError):  # no home; or a relative path, and the working directory is gone
        return None


def make_cache_directory() -> Path | None:
    """Return the cache, made if it was not there; None if there can't be one."""
    directory = cache_directory()
    try:
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return directory


def read_library(directory: Path, key: str) -> bytes | None:
    """Return the content of the library that was written under a key.

    Args:
        directory: The cache.
        key: All that the library depends on, as a hash.

    Returns:
        Its bytes, just as they were written; None if there is no such file that can be read and trusted.
    """
    for path in _find_files(directory, key):
        with suppress(OSError):
            content = _read_own_file(path)
            if content is not None and path.name == _name_library(key, content):
                return content
    return None


def write_library(directory: Path, key: str, content: bytes) -> None:
    """Put a library into the cache, whole or not at all, in place of all others under its key.

    Args:
        directory: The cache.
        key: All that the library depends on, as a hash.
        content: Its bytes.

    Raises:
        OSError: If it cannot be written; the cache is then as it was.
    """
    target = directory / _name_library(key, content)
    descriptor, beside = tempfile.mkstemp(dir=directory, prefix=".", suffix=".tmp")  # readable by this user alone
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)  # else a machine that loses power may keep the new name and an empty file
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise
    for path in _find_files(directory, key):
        if path != target:
            with suppress(OSError):
                path.unlink()


@contextmanager
def lock_key(directory: Path, key: str, timeout: float) -> Iterator[None]:
    """Hold a lock, so that one process compiles and the others wait for what it writes.

    It saves work; nothing is wrong without it. So where it cannot be had, because the file system has no
    locks or another process does not let go of it, the caller goes on without.

    Args:
        directory: The cache.
        key: The key of the library to be written.
        timeout: The longest wait, in seconds.
    """
    descriptor = None
    try:
        with suppress(OSError, ImportError):  # there is no fcntl on Windows
            import fcntl

            descriptor = os.open(directory / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            give_up_at = time.monotonic() + timeout
            while time.monotonic() < give_up_at:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _read_own_file(path: Path) -> bytes | None:
    """Return a file's content, if it is a regular file that belongs to this user and that no other may write."""
    # O_NONBLOCK: a pipe that somebody left here under this name is not waited for.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        writable_by_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.name == "posix"
        if not stat.S_ISREG(status.st_mode) or not is_own or writable_by_others:
            return None
        return file.read()


def _find_files(directory: Path, key: str) -> list[Path]:
    """List the files that are named as libraries of this key are."""
    try:
        return [
            path for path in sorted(directory.iterdir()) if path.name.startswith(f"{key}-") and path.suffix == ".so"
        ]
    except OSError:
        return []


def _name_library(key: str, content: bytes) -> str:
    """Return the name of the file of a library, which a file with other content cannot have."""
    digest = hashlib.sha256(key.encode() + content).hexdigest()
    return f"{key}-{digest[:32]}.so"
