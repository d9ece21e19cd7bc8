"""Optuna's storage of a comparison: a journal file, or a database."""

from __future__ import annotations

import logging
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_adabelief.comparison.errors import PlanError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK_SECONDS = 10
"""The age of a journal's lock file at which its owner counts as killed. A write takes milliseconds."""

EXAMPLE = "postgresql+psycopg://user:password@host/database"
"""The form of a database's URL."""


def open_storage(storage: str) -> BaseStorage:
    """Open the storage that all workers of a comparison share.

    Args:
        storage: The path of a journal file, which is made if need be, or the URL of a database.

    Raises:
        PlanError: If Optuna or the database's driver is missing, or the file or the database can't be opened.
    """
    import_optuna()
    return _open_database(storage) if "://" in storage else _open_journal(Path(storage).absolute())


def import_optuna() -> Any:
    """Import Optuna, and keep it quiet.

    Raises:
        PlanError: If it is missing.
    """
    try:
        import optuna
    except ImportError as error:
        raise PlanError("A comparison needs Optuna: pip install 'lightning-adabelief[compare]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The existing lock file")  # which a killed worker has left
    return optuna


def outage_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a storage that can't be reached now and may be in a while."""
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    return (OSError, StorageInternalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)


def hide_password(storage: str) -> str:
    """Return a storage's path or URL for messages."""
    if "://" not in storage:
        return storage
    import sqlalchemy.exc

    try:
        return sqlalchemy.engine.make_url(storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:  # not a URL
        return storage


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    class Lock(JournalFileOpenLock):
        """A lock whose owner finds only whole lines in the journal.

        Made by exclusive creation, which shared file systems have too (NFS from version 3 on).
        """

        def acquire(self) -> bool:
            is_acquired = super().acquire()
            try:
                _drop_half_line(path)
            except BaseException:
                self.release()
                raise
            return is_acquired

    if not path.parent.is_dir():
        raise PlanError(f"The comparison's journal {path} can't be made: there is no folder {path.parent}")
    return JournalStorage(JournalFileBackend(str(path), Lock(str(path), LOCK_SECONDS)))


def _drop_half_line(path: Path) -> None:
    """Cut off what a process that was killed while writing has left at a journal's end."""
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _open_database(url: str) -> BaseStorage:
    import sqlalchemy.exc
    from optuna.storages import RDBStorage

    logging.getLogger("alembic").setLevel(logging.WARNING)
    attempts = 3  # where several workers make the tables at once, all but one of them fail
    for attempt in range(attempts):
        try:
            # The connection is tried before each use: the server may have been restarted during a trial of hours
            storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
            weakref.finalize(storage, storage.engine.dispose)  # or else connections would be left open
            return storage
        except sqlalchemy.exc.ArgumentError as error:
            raise PlanError(f"{hide_password(url)} is not a database's URL. Give one such as {EXAMPLE}") from error
        except ImportError as error:
            missing = error.__cause__ or error
            raise PlanError(f"The driver of {hide_password(url)} is missing: {missing}. Install it with pip") from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            if attempt == attempts - 1:
                reason = str(error).splitlines()[0]
                raise PlanError(f"The database {hide_password(url)} can't be used: {reason}") from error
    raise AssertionError
