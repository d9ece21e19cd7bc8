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
"""Flags that g++ and clang++ share. None of them changes a result, except that a * b + c may be fused."""


@functools.cache
def load_kernel() -> ctypes.CDLL:
    """Load the library, compiling it if this machine's cache does not hold it.

    Returns:
        The library; its functions are those under ``extern "C"`` in ``cpu.cpp``.

    Raises:
        RuntimeError: If there is no C++ compiler, or it fails.
    """
    compiler = _find_compiler()
    name = f"cpu-{_compute_fingerprint(compiler)}.so"
    try:
        directory = cache_directory()
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / name).exists():
            # Ranks that start together all compile; os.replace lets none of them see a half-written file.
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                _compile_kernel(compiler, Path(scratch) / name)
                os.replace(Path(scratch) / name, directory / name)
        return ctypes.CDLL(str(directory / name))
    except OSError:  # the cache can't be written, or its file can't be loaded: do without it
        with tempfile.TemporaryDirectory() as scratch:
            _compile_kernel(compiler, Path(scratch) / name)
            return ctypes.CDLL(str(Path(scratch) / name))


def cache_directory() -> Path:
    """Return the folder of compiled kernels.

    Returns:
        ``$LIGHTNING_ADABELIEF_CACHE_DIR``, or else ``lightning_adabelief`` in ``$XDG_CACHE_HOME``
        or in ``~/.cache``.
    """
    own = os.environ.get("LIGHTNING_ADABELIEF_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_adabelief"


def _find_compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, or the first of the usual names that is installed."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise RuntimeError(
        f"`fused=True` on the CPU compiles its kernel at first use, but there is no C++ compiler here (looked for "
        f"{', '.join(candidates)}). Install g++ or clang++, set CXX to one, or give fused=False"
    )


def _compute_fingerprint(compiler: list[str]) -> str:
    """Return a hash of all that the library depends on: source, compiler, flags and CPU."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    parts = [SOURCE.read_text(encoding="utf-8"), version, " ".join(compiler), " ".join(FLAGS), _describe_cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _describe_cpu() -> str:
    """Return what ``-march=native`` depends on, so that machines that share a cache each find their own library."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    decisive = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(line for line in lines if line.split("\t")[0].strip() in decisive)


def _compile_kernel(compiler: list[str], library: Path) -> None:
    result = subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", str(library)], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(
            f"`fused=True` on the CPU could not compile its kernel: {shlex.join(compiler)} failed. Set CXX to a "
            f"g++ or clang++ that knows C++17, or give fused=False. Its output:\n{result.stderr}"
        )
