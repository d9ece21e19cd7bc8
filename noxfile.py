"""The tests on the oldest and the newest versions that pyproject.toml allows: ``nox -s oldest``, ``nox -s newest``."""

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True


@nox.session(python="3.10", venv_backend="uv")  # pip can't resolve to the lowest
def oldest(session: nox.Session) -> None:
    """Run the tests on the lower bound of each dependency, with the newest of what those need."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    run_tests(session)


@nox.session(python="3.14")
def newest(session: nox.Session) -> None:
    """Run the tests on the newest release of each dependency."""
    session.install("--upgrade", "-e", ".[test]")
    run_tests(session)


def run_tests(session: nox.Session) -> None:
    """Run the tests that are named after ``--``, or else all but the slow ones."""
    session.run("pytest", *(session.posargs or ["-n", "2", "--dist", "loadfile"]))
