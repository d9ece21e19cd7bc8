"""The CPU kernel's library: what is loaded, what is compiled anew, and what is said where it can't be had."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.fused import build, cache

COMPILER = shutil.which("g++") or shutil.which("clang++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a file of another user")
NOBODY = 65534


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The real library, compiled once."""
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    library.write_bytes(build._compile_kernel([COMPILER], build.FLOAT32))
    return library


class Machine:
    """A machine of its own: a cache, a folder of temporary files, and a compiler that counts.

    The compiler is the real one where it is asked about itself, and copies the real library where it is
    asked to compile, so that a test need not wait for it.
    """

    def __init__(self, folder, kernel, monkeypatch):
        self.folder, self.cache, self.scratch = folder, folder / "cache", folder / "scratch"
        self.scratch.mkdir()
        self.monkeypatch = monkeypatch
        self.log = folder / "log"
        self.log.touch()
        self.compiler = folder / "c++"
        self.write_compiler(
            f'for word; do if [ "$word" = -E ]; then echo "#define $CPU"; exec {COMPILER} "$@"; fi; done\n'
            f'echo compiled >> "{self.log}"; sleep 0.3; cp "{kernel}" "$word"'
        )
        monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(self.cache))
        monkeypatch.setenv("TMPDIR", str(self.scratch))
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("CPU", "A_CPU")

    def write_compiler(self, body):
        self.compiler.write_text(f"#!/bin/sh\n{body}\n")
        self.compiler.chmod(0o755)
        self.monkeypatch.setenv("CXX", str(self.compiler))

    def load(self, kind=build.FLOAT32):
        """Load the kernel as a new process would, and return how often that called the compiler."""
        before = self.count()
        build.load_kernel.cache_clear()
        assert build.load_kernel(kind).advance
        return self.count() - before

    def count(self):
        return len(self.log.read_text().splitlines())

    @property
    def libraries(self):
        return sorted(self.cache.glob("*.so"))


@pytest.fixture
def machine(tmp_path, kernel, monkeypatch):
    yield Machine(tmp_path, kernel, monkeypatch)
    build.load_kernel.cache_clear()
    left = [path.name for path in (tmp_path / "scratch").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor")] == []


def step_once():
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = AdaBelief([param], fused=True)
    try:
        optimizer.step()
    except RuntimeError:
        assert torch.equal(param, torch.ones(3)) and not optimizer.state[param].get("step")
        raise


STEP = """
import torch
from lightning_adabelief import AdaBelief
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
AdaBelief([param], fused=True).step()
assert (param < 1).all()
"""


def test_ranks_that_start_together_compile_once_and_later_processes_never(machine):
    ranks = [subprocess.Popen([sys.executable, "-c", STEP]) for _ in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert machine.count() == 1
    assert machine.load() == 0
    (library,) = machine.libraries
    assert stat.S_IMODE(library.stat().st_mode) == 0o600 and stat.S_IMODE(machine.cache.stat().st_mode) == 0o700


def truncate(library):
    os.truncate(library, 40_000)


def empty(library):
    os.truncate(library, 0)


def flip_a_bit(library):
    content = bytearray(library.read_bytes())
    content[5000] ^= 1
    library.write_bytes(content)


def write_text(library):
    library.write_text("not a library")


def let_others_write(library):
    library.chmod(0o666)


def link(library):
    elsewhere = library.parent.parent / "elsewhere.so"
    library.rename(elsewhere)
    library.symlink_to(elsewhere)


def make_pipe(library):
    library.unlink()
    os.mkfifo(library)


@pytest.mark.parametrize(
    "damage", [truncate, empty, flip_a_bit, write_text, let_others_write, link, make_pipe], ids=lambda f: f.__name__
)
def test_a_file_that_is_not_whole_or_not_ours_alone_is_compiled_anew_once_and_replaced(machine, damage):
    assert machine.load() == 1
    damage(machine.libraries[0])
    assert [machine.load(), machine.load()] == [1, 0]
    (library,) = machine.libraries
    assert library.is_file() and not library.is_symlink()


@pytest.fixture
def spy(tmp_path):
    """A library that leaves a file behind when it is loaded; and that file."""
    trace, library = tmp_path / "was run", tmp_path / "spy.so"
    source = f'#include <cstdio>\n__attribute__((constructor)) void run() {{ std::fopen("{trace}", "w"); }}'
    command = [COMPILER, "-shared", "-fPIC", "-x", "c++", "-", "-o", library]
    subprocess.run(command, input=source, text=True, check=True)
    return library, trace


def test_a_library_of_other_content_is_never_run(machine, spy):
    machine.load()
    shutil.copy(spy[0], machine.libraries[0])
    assert machine.load() == 1
    assert not spy[1].exists()


@needs_root
def test_a_library_that_another_user_left_is_never_run_though_its_name_is_right(machine, spy):
    machine.load()
    (ours,) = machine.libraries
    key = ours.name.rpartition("-")[0]
    ours.unlink()
    content = spy[0].read_bytes()
    theirs = machine.cache / cache._name_library(key, content)
    theirs.write_bytes(content)
    theirs.chmod(0o644)
    os.chown(theirs, NOBODY, NOBODY)
    assert [machine.load(), machine.load()] == [1, 0]
    assert not spy[1].exists() and machine.libraries == [ours]


def test_machines_with_different_cpus_share_a_cache_and_keep_their_own_libraries(machine):
    compiled = []
    for name in ("A_CPU", "ANOTHER_CPU", "A_CPU", "ANOTHER_CPU"):
        machine.monkeypatch.setenv("CPU", name)
        compiled.append(machine.load())
    assert compiled == [1, 1, 0, 0] and len(machine.libraries) == 2


def test_each_kind_of_tensors_has_a_library_of_its_own_compiled_once(machine):
    packed = build.Kind("BFloat16", "BFloat16", "uint8_t", 8)
    assert [machine.load(), machine.load(packed), machine.load(), machine.load(packed)] == [1, 1, 0, 0]
    assert len(machine.libraries) == 2


NOT_COMPILERS = {
    "nothing of this name": ("no-such-compiler", r"no C\+\+ compiler here \(looked for no-such-compiler\)"),
    "true": ("/bin/true", r"/bin/true does not answer as g\+\+ and clang\+\+ do"),
    "a quote too many": ("g++ 'x", r"CXX=\"g\+\+ 'x\" is no command \(No closing quotation\)"),
    "spaces alone": ("  ", r"no C\+\+ compiler here"),
}


@pytest.mark.parametrize(("cxx", "message"), NOT_COMPILERS.values(), ids=list(NOT_COMPILERS))
def test_without_a_compiler_an_error_names_the_remedy_and_nothing_changes(machine, cxx, message):
    machine.monkeypatch.setenv("CXX", cxx)
    build.load_kernel.cache_clear()
    with pytest.raises(RuntimeError, match=rf"^The kernel of `fused=True` .*{message}.*CXX.*give fused=False"):
        step_once()


BROKEN_COMPILERS = {
    "not UTF-8": (r"printf '\377\376'; printf '\377 no such flag\n' >&2; exit 1", "does not answer.*no such flag"),
    "fails": (f'case " $* " in *" -E "*) exec {COMPILER} "$@";; esac; echo flop >&2; exit 3', "exit code 3.*flop"),
    "makes nothing": (f'case " $* " in *" -E "*) exec {COMPILER} "$@";; esac', "could not compile.*exit code 0"),
    "makes rubbish": (
        f'for w; do [ "$w" = -E ] && exec {COMPILER} "$@"; done; echo rubbish > "$w"',
        "could not be loaded.*LIGHTNING_ADABELIEF_CACHE_DIR",
    ),
    "makes another library": (
        f'for w; do [ "$w" = -E ] && exec {COMPILER} "$@"; done; '
        f'echo "int other;" | {COMPILER} -shared -fPIC -x c++ - -o "$w"',
        "could not be loaded .it has no function `advance`",
    ),
    "waits for input": ("cat; exit 1", "does not answer as"),
    "hangs": ("sleep 600 & sleep 600", "was ended because it took more than 1 seconds"),
    "leaves a child that hangs": ("sleep 600 & exit 0", "was ended because it took more than 1 seconds"),
}


@pytest.mark.parametrize(("body", "message"), BROKEN_COMPILERS.values(), ids=list(BROKEN_COMPILERS))
def test_a_compiler_that_does_not_work_is_an_error_that_quotes_it(machine, body, message):
    machine.write_compiler(body)
    machine.monkeypatch.setattr(build, "QUERY_TIMEOUT", 1)
    build.load_kernel.cache_clear()
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s){message}") as raised:
        step_once()
    assert "give fused=False" in str(raised.value).splitlines()[0]
    assert time.monotonic() - start < 5 and machine.libraries == []


def test_a_compiler_that_hangs_while_it_compiles_is_ended_with_all_that_it_started(machine):
    pid = machine.folder / "pid"
    machine.write_compiler(
        f'for w; do [ "$w" = -E ] && exec {COMPILER} "$@"; done; touch "$TMPDIR/left over"\n'
        f"sh -c \"echo \\$\\$ > '{pid}'; exec sleep 600\""
    )
    machine.monkeypatch.setattr(build, "COMPILE_TIMEOUT", 1)
    build.load_kernel.cache_clear()
    with pytest.raises(RuntimeError, match="took more than 1 seconds"):
        build.load_kernel(build.FLOAT32)
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # until init has reaped it
            os.kill(int(pid.read_text()), 0)
            if Path(f"/proc/{pid.read_text().strip()}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                raise ProcessLookupError
            time.sleep(0.1)


def test_where_no_cache_can_be_written_the_kernel_is_compiled_for_the_process(machine):
    (machine.folder / "file").write_text("not a folder")
    for folder in (machine.folder / "file", machine.folder / "file" / "below", "/proc/no/such"):
        machine.monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(folder))
        assert machine.load() == 1


def test_without_a_home_the_kernel_is_compiled_for_the_process(machine):
    machine.monkeypatch.delenv("LIGHTNING_ADABELIEF_CACHE_DIR")
    machine.monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user/.cache")
    assert cache.cache_directory() is None
    assert machine.load() == 1


@needs_root
def test_a_user_who_may_not_write_the_cache_or_has_no_home_compiles_for_the_process(kernel, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        machine = Machine(Path(folder), shutil.copy(kernel, folder), monkeypatch)
        machine.load()
        before = machine.libraries
        for path in (machine.folder, machine.scratch, machine.log):
            path.chmod(0o777)
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                assert machine.load() == 1
                for name in ("LIGHTNING_ADABELIEF_CACHE_DIR", "HOME"):
                    os.environ.pop(name, None)
                assert machine.load() == 1
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert machine.libraries == before
        build.load_kernel.cache_clear()


def can_mount():
    unshare = shutil.which("unshare")
    return unshare and subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="no file system can be mounted here")
def test_a_cache_that_is_noexec_read_only_or_full_is_no_obstacle(machine):
    code = f"""
import os, subprocess, tempfile
from pathlib import Path
from lightning_adabelief.optim.fused import build

def mount(name, options):
    folder = Path({str(machine.folder)!r}) / name
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    return folder

def load(cache, scratch):
    os.environ["LIGHTNING_ADABELIEF_CACHE_DIR"] = str(cache)
    tempfile.tempdir = str(scratch)
    build.load_kernel.cache_clear()
    try:
        assert build.load_kernel(build.FLOAT32).advance
    finally:
        assert not [path for path in cache.iterdir() if path.suffix not in (".so", ".lock")]
        assert not list(scratch.iterdir())

scratch = mount("exec", "exec")
for cache, files in ((mount("noexec", "noexec"), 2), (mount("read only", "ro"), 0), (mount("full", "size=16k"), 1)):
    load(cache, scratch)
    assert len(list(cache.iterdir())) == files
noexec_scratch = mount("noexec scratch", "noexec")
load(mount("exec cache", "exec"), noexec_scratch)
try:
    load(mount("noexec cache", "noexec"), noexec_scratch)
except RuntimeError as error:
    assert "LIGHTNING_ADABELIEF_CACHE_DIR to a folder" in str(error) and "noexec" in str(error), error
else:
    raise AssertionError("nothing can be executed here")
"""
    subprocess.run(["unshare", "-rm", sys.executable, "-c", code], check=True)


def test_spaces_in_every_path_and_a_relative_cache(machine):
    compiler = machine.folder / "a compiler" / "g ++"
    compiler.parent.mkdir()
    machine.compiler.rename(compiler)
    machine.monkeypatch.setenv("CXX", str(compiler))
    machine.monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", str(machine.folder / "a cache"))
    assert [machine.load(), machine.load()] == [1, 0]
    machine.monkeypatch.setenv("CXX", f"'{compiler}' -g0")
    assert [machine.load(), machine.load()] == [1, 0]
    machine.monkeypatch.chdir(machine.folder / "a cache")
    machine.monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", ".")
    assert machine.load() == 0


def test_a_lock_that_is_never_let_go_of_is_not_waited_for_longer_than_a_compilation(machine):
    machine.cache.mkdir()
    with cache.lock_key(machine.cache, "cpu-key", timeout=1):
        start = time.monotonic()
        with cache.lock_key(machine.cache, "cpu-key", timeout=0.2):
            assert 0.2 <= time.monotonic() - start < 1
    with open(machine.cache / "cpu-key.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LIGHTNING_ADABELIEF_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "lightning_adabelief"
    monkeypatch.setenv("LIGHTNING_ADABELIEF_CACHE_DIR", "~/own")
    assert cache.cache_directory() == Path.home() / "own"
