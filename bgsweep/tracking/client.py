"""MLflow's tracking URI, and clients for it."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bgsweep.addresses import silent, tracking_address
from bgsweep.errors import UserError, one_line, without_password
from bgsweep.storage.atomic import replacing
from bgsweep.storage.uri import Uri, is_remote

# Packages of database drivers that are not named like their module.
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}

# What MLflow's pages show of an experiment first; it guesses, and asks, where no kind was chosen.
_KIND, _TRAINING, _UNKNOWN = "mlflow.experimentKind", "custom_model_development", "no_inferred_type"

_VARIABLE = "MLFLOW_TRACKING_URI"
_GLOBAL = threading.RLock()


def tracking_uri(store: Uri) -> str:
    """MLFLOW_TRACKING_URI if it is set, else a SQLite file in the store's folder, which is created.

    Raises:
        UserError: as `tracking_address`, or the folder cannot be created.
    """
    address = tracking_address()
    if address:
        return address
    if is_remote(store):
        raise UserError(f"{store}: MLflow's SQLite file cannot be there; set MLFLOW_TRACKING_URI to a server")
    store = Path(store)
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{store}: cannot be created: {error.strerror}; name another folder by --store") from error
    # In a URI `?` begins options, and %20 is a space.
    path = str(store.resolve() / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


def sqlite_file(address: str) -> Path | None:
    """The file of a SQLite URI; None for other URIs."""
    path = address.partition("?")[0].removeprefix("sqlite:///")
    return Path(unquote(path)) if address.startswith("sqlite:///") else None


@contextlib.contextmanager
def mlflow_client(address: str) -> Iterator[Any]:
    """A context with a client; raises `UserError` if MLflow rejects a call or is unreachable."""
    client = _connected(address)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _unusable(address, error) from error


@contextlib.contextmanager
def as_global_uri(address: str) -> Iterator[None]:
    """A context in which MLflow's global tracking URI is this one, for calls of MLflow that know no other.

    MLflow sets MLFLOW_TRACKING_URI with it, which `tracking_uri` takes for the user's choice: afterwards both are as
    before. Threads wait for one another.
    """
    quiet_mlflow()
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    with _GLOBAL:
        before = os.environ.get(_VARIABLE)
        try:
            with _use_tracking_uri(address):
                yield
        finally:
            os.environ.pop(_VARIABLE, None)
            if before is not None:
                os.environ[_VARIABLE] = before


def _connected(address: str) -> Any:
    """A client with an open database; creates the tables of a new one."""
    quiet_mlflow()
    from mlflow import MlflowClient

    with _alone_with(sqlite_file(address), address):
        try:
            if reason := silent(address):  # MLflow would retry for minutes
                raise ConnectionError(f"it does not answer ({reason})")
            _create(sqlite_file(address))
            client = MlflowClient(tracking_uri=address)
            if not address.startswith("http"):
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
                _remove_stray(address)
        except ImportError as error:
            driver = str(error.name or "").partition(".")[0]
            raise UserError(
                f"MLflow at {without_password(address)} needs the Python package {driver}; install it with "
                f"`pip install {_PACKAGES.get(driver, driver)}`"
            ) from error
        except Exception as error:  # of SQLAlchemy, alembic, databases' drivers
            raise _unusable(address, error) from error
    return client


@contextlib.contextmanager
def prepared(address: str, create: bool) -> Iterator[None]:
    """A context in which a thread imports MLflow, and with ``create`` makes a SQLite database that is missing.

    That takes three seconds of a core, in which a sweep can wait for Ray. Nothing is raised, and nothing is asked of a
    server: what is wrong is found, and told, by `mlflow_client`.
    """

    def prepare() -> None:
        with contextlib.suppress(Exception):
            quiet_mlflow()
            if sqlite_file(address) is None:
                return
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  a second of a core

            if create:
                with _alone_with(sqlite_file(address), address):
                    _create(sqlite_file(address))

    thread = threading.Thread(target=prepare, name="mlflow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _create(database: Path | None) -> None:
    """Make a SQLite database with MLflow's tables, if there is none: whole or not at all.

    MLflow's own 400 statements, on a file which is written to the disk once. By itself MLflow waits for the disk after
    each, 4 s where that is slow, and a process that is killed meanwhile leaves some of the tables.
    """
    if database is None or database.exists():
        return
    from mlflow.store.db import utils
    from sqlalchemy import URL, create_engine, event

    with replacing(database) as partial:
        engine = create_engine(URL.create("sqlite", database=str(partial)))
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()


def _remove_stray(address: str) -> None:
    """Remove the empty folder that MLflow creates for an undecoded path (`%3F` for `?`)."""
    written, meant = Path(address.removeprefix("sqlite:///")).parent, sqlite_file(address)
    if meant is not None and written != meant.parent:
        with contextlib.suppress(OSError):
            written.rmdir()


def _unusable(address: str, error: Exception) -> UserError:
    fix = "start the server, or unset MLFLOW_TRACKING_URI to keep the runs in a local folder"
    if sqlite_file(address):
        fix = "name another --store, or correct MLFLOW_TRACKING_URI if it is set"
    return UserError(f"MLflow at {without_password(address)} cannot be used: {one_line(error)}; {fix}")


@contextlib.contextmanager
def _alone_with(database: Path | None, address: str) -> Iterator[None]:
    """A lock for opening a SQLite database: two processes that create its tables at the same time would both fail.

    A damaged database is refused here, since MLflow would retry for minutes to open it.
    """
    if database is None:
        yield
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with (database.parent / ".mlflow.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if database.exists():
                with contextlib.closing(sqlite3.connect(database)) as connection:
                    connection.execute("SELECT count(*) FROM sqlite_master")
            yield
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{database}: MLflow's database cannot be used: {one_line(error)}; restore it from a backup, move it away "
            f"for a new one, or name another --store"
        ) from error


def quiet_mlflow() -> None:
    """Turn off MLflow's messages, telemetry and long retries; `Writer` has its own retries."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow  # noqa: F401  sets its own log level, which is then changed

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(
        logging.ERROR
    )  # `Writer` logs once that a server is unreachable


def pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    """All results of a search of the client, from all pages."""
    found: list[Any] = []
    page: Any = None
    while page is None or page.token:
        page = search(*arguments, page_token=page.token if page else None)
        found += page
    return found


def experiment_id(client: Any, address: str, name: str) -> str:
    """The id of an MLflow experiment, which is created if it is missing."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        database = sqlite_file(address)
        location = database.with_name("artifacts").absolute().as_uri() if database else None
        try:
            client.create_experiment(name, artifact_location=location, tags={_KIND: _TRAINING})
        except MlflowException:
            if client.get_experiment_by_name(name) is None:  # unless another process has just made it
                raise
        known = client.get_experiment_by_name(name)
    if known.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow's experiment {name!r} is deleted; restore it with `mlflow experiments restore --experiment-id "
            f"{known.experiment_id}` (MLFLOW_TRACKING_URI={without_password(address)}), or choose another: name=OTHER"
        )
    found: str = known.experiment_id
    if known.tags.get(_KIND, _UNKNOWN) in (_UNKNOWN, f"{_TRAINING}_inferred", "genai_development_inferred"):
        client.set_experiment_tag(found, _KIND, _TRAINING)
    return found
