"""A PostgreSQL of the tests' own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

USER = "nobody"
"""The user that the server runs as where the tests run as root, which PostgreSQL refuses."""


class Postgres:
    """A server that can be stopped and started, in a folder of its own, reached by a socket there."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.databases = 0
        self._run("initdb", "--auth=trust", "--username=test", "--no-sync")
        self.start()

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self.folder / 'log'}", f"--options={options}", "start")

    def stop(self):
        self._run("pg_ctl", "--wait", "--mode=fast", "stop")

    def make_database(self):
        """Return the URL of a new database."""
        import psycopg

        self.databases += 1
        name = f"comparison{self.databases}"
        with psycopg.connect(host=str(self.folder), user="test", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return f"postgresql+psycopg://test@/{name}?host={self.folder}"

    def _run(self, program, *arguments):
        command = [self.programs / program, f"--pgdata={self.folder / 'data'}", *arguments]
        user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        # The server keeps what it inherits: a pipe would never be closed.
        with open(os.devnull, "w") as nothing:
            subprocess.run(command, check=True, stdout=nothing, stderr=nothing, cwd=self.folder, **user)


@pytest.fixture(scope="session")
def postgres():
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("there is no PostgreSQL on this machine")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to another user
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    server = Postgres(folders[-1], folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres):
    """The URL of an empty database."""
    return postgres.make_database()
