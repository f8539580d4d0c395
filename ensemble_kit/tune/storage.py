"""The database of the studies: an SQLite file in the run folder, or a database server."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault, IntegrityError, UsageError
from ensemble_kit.faults import chain, machine_fault
from ensemble_kit.run import Run

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# A worker without a heartbeat for this time counts as dead (database servers only).
HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 60
LOCK = 7130216
# Server -> (its Python driver, the package to install).
SERVERS = {"postgresql": ("psycopg", "psycopg[binary]")}


def storage_path(run: Run) -> Path:
    """The SQLite file that holds the studies of all members."""
    return run.path / "tuned" / "studies.db"


def is_server(url: str | None) -> bool:
    """Whether the studies are on a database server that several hosts can reach."""
    return url is not None and not url.startswith("sqlite")


def open_storage(run: Run, url: str | None = None) -> optuna.storages.RDBStorage:
    """The storage of a run's studies; a missing one is created.

    Raises
    ------
    UsageError
        The URL of an unsupported database.
    EnvironmentFault
        The server cannot be reached, or its driver is not installed.
    IntegrityError
        The SQLite file is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if url is None:
        path = storage_path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        with database(path):
            return optuna.storages.RDBStorage(
                f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
    return _server(url)


def _server(url: str) -> optuna.storages.RDBStorage:
    kind = url.partition("://")[0].partition("+")[0]
    if kind not in SERVERS:
        raise UsageError(
            f"Unknown storage '{without_password(url)}'",
            f"the supported databases are {', '.join(SERVERS)}",
            "Use e.g. postgresql://USER@HOST/DATABASE, or leave out --storage for a file in the run folder",
        )
    driver, extra = SERVERS[kind]
    try:
        import psycopg  # noqa: F401  (only to check that it is installed)
    except ImportError as error:
        raise EnvironmentFault(
            f"The package {driver} is not installed",
            f"the database '{without_password(url)}' needs it",
            f"Install it: pip install '{extra}'",
        ) from error
    rest = url.partition("://")[2]
    try:
        return _tables(f"{kind}+{driver}://{rest}")
    except Exception as error:
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise EnvironmentFault(
            f"The database server '{without_password(url)}' cannot be used: {reason[:200]}",
            "--storage needs a database server that can be reached",
            "Check the address, the user and that the server runs, then run the same command",
        ) from error


def _tables(url: str, tries: int = 5) -> optuna.storages.RDBStorage:
    """The storage; if two hosts create its tables at the same time, one of them tries again."""
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
        )
    except Exception:
        if tries == 1:
            raise
    time.sleep(0.5)
    return _tables(url, tries - 1)


@contextlib.contextmanager
def one_host_at_a_time(storage: optuna.storages.RDBStorage, *, has_server: bool) -> Iterator[None]:
    """Only one host at a time is inside this block, for the same database."""
    if not has_server:
        yield
        return
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
        yield


def without_password(url: str) -> str:
    """A URL with its password masked.

    Examples
    --------
    >>> without_password("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    """
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


@contextlib.contextmanager
def database(path: Path) -> Iterator[None]:
    """Turn database errors inside the block into errors of the disk or of a damaged file.

    Raises
    ------
    EnvironmentFault
        The disk is full or read-only; stored trials are not lost.
    IntegrityError
        The file is damaged, or is not an SQLite database.
    """
    try:
        yield
    except EnsembleKitError:
        raise
    except Exception as error:
        if (fault := machine_fault(error, path)) is not None:
            raise fault from error
        if any(getattr(link, "sqlite_errorname", "").startswith(DAMAGED) for link in chain(error)):
            raise IntegrityError(
                f"'{path}' is damaged",
                "it must be an SQLite database that Optuna wrote",
                "Delete that file, then run the same command: the studies begin again",
            ) from error
        raise
