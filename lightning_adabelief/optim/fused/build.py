"""The CPU kernel's shared library: compiled at first use, kept in a cache, loaded by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("cpu.cpp")

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",  # else the square root is a call, one number at a time
    "-fno-trapping-math",  # else a choice between two values is a branch
    "-fPIC",
    "-shared",
)
"""Flags that g++ and clang++ share. None lets the compiler change a result beyond fusing a * b + c."""


@functools.cache
def load_kernel() -> ctypes.CDLL:
    """Load the library, compiling it if this machine's cache does not hold it.

    Returns:
        The library; its functions are those under ``extern "C"`` in ``cpu.cpp``.

    Raises:
        RuntimeError: If there is no C++ compiler, or it fails.
    """
    compiler = _compiler()
    name = f"cpu-{_fingerprint(compiler)}.so"
    try:
        directory = cache_directory()
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / name).exists():
            # Ranks that start together each compile, and each puts a whole file in place.
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                _compile(compiler, Path(scratch) / name)
                os.replace(Path(scratch) / name, directory / name)
        return ctypes.CDLL(str(directory / name))
    except OSError:  # nowhere to write, or a file that can't be loaded: do without the cache
        with tempfile.TemporaryDirectory() as scratch:
            _compile(compiler, Path(scratch) / name)
            return ctypes.CDLL(str(Path(scratch) / name))


def cache_directory() -> Path:
    """Where compiled kernels are kept.

    Returns:
        ``$LIGHTNING_ADABELIEF_CACHE_DIR``, or else ``lightning_adabelief`` in ``$XDG_CACHE_HOME``
        or in ``~/.cache``.
    """
    own = os.environ.get("LIGHTNING_ADABELIEF_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_adabelief"


def _compiler() -> list[str]:
    """The command of the C++ compiler: ``$CXX``, or the first known one on the path."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise RuntimeError(
        f"`fused=True` on the CPU compiles its kernel at first use, and found no C++ compiler (looked for "
        f"{', '.join(candidates)}). Install g++ or clang++, set CXX to one, or give fused=False"
    )


def _fingerprint(compiler: list[str]) -> str:
    """What the library depends on, hashed: its source, the compiler, the flags and the CPU."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    parts = [SOURCE.read_text(encoding="utf-8"), version, " ".join(compiler), " ".join(FLAGS), _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _cpu() -> str:
    """What ``-march=native`` looks at, so that a cache shared by several machines serves each."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(line for line in lines if line.split("\t")[0].strip() in kept)


def _compile(compiler: list[str], library: Path) -> None:
    result = subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", str(library)], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(
            f"`fused=True` on the CPU could not compile its kernel: {shlex.join(compiler)} failed. Set CXX to a "
            f"g++ or clang++ that knows C++17, or give fused=False. It said:\n{result.stderr}"
        )
