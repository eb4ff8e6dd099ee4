"""Where MLflow is, and the way to it."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bgsweep.addresses import silent, tracking_address
from bgsweep.errors import UserError, one_line, without_password
from bgsweep.places import Place, is_remote


def tracking_uri(store: Place) -> str:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite file in the store's folder, which is made.

    Raises:
        UserError: as `tracking_address`, or the folder cannot be made.
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
        raise UserError(f"{store}: cannot be the store's folder: {error.strerror}") from error
    return f"sqlite:///{store.resolve() / 'mlflow.db'}"


@contextlib.contextmanager
def mlflow_client(address: str) -> Iterator[Any]:
    """MLflow's client at a tracking URI; raises `UserError` for what MLflow refuses within, or where it is gone."""
    _quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if reason := silent(address):  # MLflow would try for minutes where nothing refuses the connection
            raise ConnectionError(f"it does not answer ({reason})")
        yield MlflowClient(tracking_uri=address)
    except ModuleNotFoundError as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI={without_password(address)}: the database's driver {error.name} is not installed; "
            f"pip install {error.name}"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"MLflow at {without_password(address)} cannot be used: {one_line(error)}; start the server, or unset "
            "MLFLOW_TRACKING_URI to keep the runs in a local folder"
        ) from error


def _quiet_mlflow() -> None:
    """Keep MLflow from chatting, calling home, and retrying for minutes what the writer tries again anyway."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow  # noqa: F401  sets its own log level, which is then changed

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # the writer says once that a server is away


def pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    """All that one of the client's searches finds, however many pages it takes."""
    found: list[Any] = []
    page: Any = None
    while page is None or page.token:
        page = search(*arguments, page_token=page.token if page else None)
        found += page
    return found


def experiment_id(client: Any, address: str, name: str) -> str:
    """The id of an MLflow experiment, which is made where it is missing."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        location = Path(address.removeprefix("sqlite:///")).with_name("artifacts").absolute().as_uri()
        try:
            client.create_experiment(name, artifact_location=location if address.startswith("sqlite:///") else None)
        except MlflowException:
            if client.get_experiment_by_name(name) is None:  # unless another process has just made it
                raise
        known = client.get_experiment_by_name(name)
    found: str = known.experiment_id
    return found
