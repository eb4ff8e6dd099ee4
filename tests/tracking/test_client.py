"""MLflow's database, made before it is needed."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bgsweep.tracking import Tracker, client
from bgsweep.tracking.client import prepared


def tables(database: Path) -> dict[tuple[str, str], list[Any]]:
    """Columns of each table and index; constraints come in another order each time that MLflow makes them."""
    with sqlite3.connect(database) as connection:
        found = list(connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
        return {each: list(connection.execute(f"PRAGMA {each[0]}_info('{each[1]}')")) for each in found}


def test_a_new_database_is_the_one_that_mlflow_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared(f"sqlite:///{tmp_path}/ours.db", create=True):
        pass
    ours = tables(tmp_path / "ours.db")
    assert ours
    monkeypatch.setattr(client, "_create", lambda database: None)
    Tracker(f"sqlite:///{tmp_path}/theirs.db")
    assert ours == tables(tmp_path / "theirs.db")


def test_a_database_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    def fails(engine: Any) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE runs (id INTEGER)"))
        raise OSError("the disk is full")

    monkeypatch.setattr(utils, "_initialize_tables", fails)
    with prepared(f"sqlite:///{tmp_path}/mlflow.db", create=True):
        pass  # nothing is raised: the sweep's own opening will tell
    assert [path.name for path in tmp_path.iterdir()] == [".mlflow.lock"]


@pytest.mark.parametrize("create", [True, False])
def test_a_database_that_is_there_is_left_alone(tmp_path: Path, create: bool) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database")
    with prepared(f"sqlite:///{tmp_path}/mlflow.db", create):
        pass
    assert (tmp_path / "mlflow.db").read_bytes() == b"not a database"


def test_on_a_cluster_no_database_is_made_before_its_folder_is_known_to_be_shared(tmp_path: Path) -> None:
    with prepared(f"sqlite:///{tmp_path}/mlflow.db", create=False):
        pass
    assert not list(tmp_path.iterdir())
