"""The CPU kernels' shared libraries: each compiled at first use, kept in a cache, loaded by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lightning_adabelief.optim.fused.cache import (
    cache_directory,
    lock_key,
    make_cache_directory,
    read_library,
    write_library,
)

SOURCE = Path(__file__).with_name("cpu.cpp")
HEADERS = tuple(
    SOURCE.with_name(f"{name}.h")
    for name in (
        "elements",
        "low_precision",
        "pack",
        "packed_codes",
        "packed_step",
        "plain_step",
        "rule",
        "step_sums",
        "vectors",
    )
)

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",  # else the square root is a call, one number at a time
    "-fno-trapping-math",  # else a choice between two values is a branch
    "-ffp-contract=off",  # else the compiler chooses which a * b + c to round once, differently in each variant
    "-fPIC",
    "-shared",
)
"""Flags that g++ and clang++ share. None of them changes a result."""

QUERY_TIMEOUT = 20
"""Seconds that a compiler has to say what it is, which takes hundredths."""

COMPILE_TIMEOUT = 60
"""Seconds that a compiler has for a kernel, which takes one or two."""

MAX_QUOTED_CHARACTERS = 2000
"""The length of a compiler's output in an error message."""


class Kind(NamedTuple):
    """The kind of tensors that a kernel is compiled for, by the names of their types in ``cpu.cpp``.

    Attributes:
        param: The type of the parameters.
        grad: That of their gradients.
        average: That of their averages; ``uint8_t`` if they are packed.
        kept: The bits of their corrections: 0, 8 or 16.
    """

    param: str
    grad: str
    average: str
    kept: int = 0


FLOAT32 = Kind("float", "float", "float")
"""Parameters whose gradients and averages are in float32 as well."""


@functools.cache
def load_kernel(kind: Kind) -> ctypes.CDLL:
    """Load the library of a kind, compiling it if the cache does not hold it whole and written by this user.

    Args:
        kind: The kind of tensors.

    Returns:
        The library; its functions are those under ``extern "C"`` in ``cpu.cpp``.

    Raises:
        RuntimeError: If there is no C++ compiler, it fails or does not end, or the library it makes
            cannot be loaded; the message says which, and the remedy.
    """
    compiler = _find_compiler()
    key = f"cpu-{_compute_fingerprint(compiler, kind)}"
    directory = make_cache_directory()
    if directory is None:
        return _load_library(_compile_kernel(compiler, kind), compiler)
    library = _load_cached(directory, key, compiler)
    if library is None:
        with lock_key(directory, key, timeout=COMPILE_TIMEOUT):
            # Another process may have written it since.
            library = _load_cached(directory, key, compiler) or _build_cached(directory, key, compiler, kind)
    return library


def _load_cached(directory: Path, key: str, compiler: list[str]) -> ctypes.CDLL | None:
    """Load the library from the cache; None if the cache does not hold it."""
    content = read_library(directory, key)
    return None if content is None else _load_library(content, compiler)


def _build_cached(directory: Path, key: str, compiler: list[str], kind: Kind) -> ctypes.CDLL:
    """Compile and load the library, and put it into the cache once it is known to load."""
    content = _compile_kernel(compiler, kind)
    library = _load_library(content, compiler)
    with suppress(OSError):  # a cache that is full or read-only: the next process compiles again
        write_library(directory, key, content)
    return library


def _find_compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, or the first of the usual names that is installed."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for candidate in candidates:
        if shutil.which(candidate):  # a path with spaces is one word
            return [candidate]
        try:
            command = shlex.split(candidate)
        except ValueError as error:
            raise _make_error(f"CXX={candidate!r} is no command ({error}).", "Set CXX to g++ or clang++") from None
        if command and shutil.which(command[0]):
            return command
    raise _make_error(
        f"there is no C++ compiler here (looked for {', '.join(candidates)}).",
        "Install g++ or clang++, set CXX to one",
    )


def _compute_fingerprint(compiler: list[str], kind: Kind) -> str:
    """Return a hash of all that the library depends on: source, kind, compiler, flags, CPU, C library and user.

    The compiler says itself what ``-march=native`` means on this machine, by the macros it predefines, so
    that machines with different CPUs that share a cache each find their own library.
    """
    # -E preprocesses only, here an empty file, and -dM prints all macros.
    query = _run_compiler([*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull], QUERY_TIMEOUT)
    if "__cplusplus" not in query.stdout:
        raise _make_error(
            f"{shlex.join(compiler)} does not answer as g++ and clang++ do.",
            "Set CXX to one of them",
            query.stdout + query.stderr,
        )
    user = str(os.geteuid()) if hasattr(os, "geteuid") else ""  # nobody can replace another's file in a shared folder
    machine = (platform.machine(), *platform.libc_ver())
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *HEADERS)]
    parts = [*sources, *_define(kind), query.stdout, *compiler, *FLAGS, *machine, user]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _define(kind: Kind) -> list[str]:
    """Return the compiler's options by which the source knows its kind."""
    return [f"-D{name.upper()}={value}" for name, value in kind._asdict().items()]


def _compile_kernel(compiler: list[str], kind: Kind) -> bytes:
    """Compile the library, and return its content."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "kernel.so"
            command = [*compiler, *FLAGS, *_define(kind), str(SOURCE), "-o", str(target)]
            result = _run_compiler(command, COMPILE_TIMEOUT, scratch)
            if result.returncode == 0 and target.exists():
                return target.read_bytes()
    except OSError as error:
        raise _make_error(
            f"there is no temporary folder to compile it in ({error}).", "Set TMPDIR to one that can be written"
        ) from error
    raise _make_error(
        f"{shlex.join(compiler)} could not compile its source (exit code {result.returncode}).",
        "Set CXX to a g++ or clang++ that knows C++17",
        result.stderr,
    )


def _run_compiler(command: list[str], timeout: float, scratch: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a compiler and return what it said; end it, and whatever it started, if it takes too long.

    Args:
        command: The compiler and its arguments.
        timeout: The longest it may take, in seconds.
        scratch: The folder of its temporary files, so that none is left of a compiler that was ended.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            errors="replace",  # not all compilers write UTF-8
            env=os.environ | ({"TMPDIR": scratch} if scratch else {}),
            start_new_session=True,  # a group of its own: the compiler may be a script that starts others
        )
    except OSError as error:
        raise _make_error(f"{command[0]} could not be started ({error}).", "Set CXX to g++ or clang++") from error
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException as error:
        _kill_group(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise _make_error(
            f"{command[0]} was ended because it took more than {timeout} seconds.", "Set CXX to g++ or clang++"
        ) from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started."""
    with suppress(OSError):  # it has ended meanwhile
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):  # a process that left the group may hold the pipe open
        process.communicate(timeout=1)


def _load_library(content: bytes, compiler: list[str]) -> ctypes.CDLL:
    """Load a library by its content, from a folder that nobody else can write, which is then removed.

    What was verified is so what runs, even if another process changes the cache at this moment; and a
    cache on a file system without execution ("noexec") serves all the same.
    """
    problem = ""
    for parent in (None, cache_directory()):  # the folder of temporary files may be noexec too
        try:
            with tempfile.TemporaryDirectory(dir=parent) as scratch:
                path = Path(scratch) / "kernel.so"
                path.write_bytes(content)
                library = ctypes.CDLL(str(path))
            if hasattr(library, "advance"):
                return library
            problem = "it has no function `advance`"
        except OSError as error:
            problem = problem or str(error)
    raise _make_error(
        f"what {shlex.join(compiler)} made of it could not be loaded ({problem}).",
        "Set LIGHTNING_ADABELIEF_CACHE_DIR to a folder that can be written and is not noexec, CXX to g++ or clang++",
    )


def _make_error(cause: str, remedy: str, output: str = "") -> RuntimeError:
    """Return the error of a kernel that cannot be had, its first line the cause and the remedy."""
    message = f"The kernel of `fused=True` on the CPU cannot be had: {cause} {remedy}, or give fused=False"
    if output.strip():
        message += f"\nThe compiler's output:\n{output.strip()[-MAX_QUOTED_CHARACTERS:]}"
    return RuntimeError(message)
