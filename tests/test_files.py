"""A file is the old one or the whole new one, whatever happens while it is written."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from lightning_adabelief.files import check_writable, replace_file


@pytest.fixture
def small_disk():
    """No file of this process can grow beyond 1,000 bytes, as on a full disk; it says EFBIG, and not ENOSPC."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "a/b/score.txt"
    for text in ("old", "new"):
        with replace_file(path) as part:
            part.write_text(text)
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["score.txt"]


def test_after_an_error_the_old_file_is_whole_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "score.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replace_file(path) as part:
        part.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["score.txt"]


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(tmp_path, small_disk):
    path = tmp_path / "score.txt"
    path.write_text("old")
    with pytest.raises(OSError) as raised, replace_file(path) as part:
        part.write_bytes(bytes(2000))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["score.txt"]


def test_a_process_killed_while_it_writes_leaves_the_old_file_and_the_next_one_tidies_up(tmp_path):
    path = tmp_path / "score.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys\nfrom lightning_adabelief.files import replace_file\n"
        "with replace_file(sys.argv[1]) as part:\n"
        "    part.write_text('half of the n')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    assert path.read_text() == "old"
    with replace_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["score.txt"]


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a/b")
    assert os.listdir(tmp_path / "a/b") == []


def test_where_a_file_is_in_the_way_of_a_folder_it_is_named(tmp_path):
    (tmp_path / "logs").write_text("mine")
    for write in (check_writable, lambda folder: replace_file(folder / "score.txt").__enter__()):
        with pytest.raises(NotADirectoryError, match="Not a directory: .*logs"):
            write(tmp_path / "logs")
    assert (tmp_path / "logs").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied: .*"):
        check_writable(tmp_path)
