"""Addresses in the environment: wrong ones are refused at once, and secrets in them are not shown."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgsweep.addresses import ray_address, tracking_address
from bgsweep.errors import UserError, without_password
from tests.command import bgsweep

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a server that is no Ray cluster's."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://head:10001", "a Ray Client address, .*`bgsweep submit FILE --address http://HEAD:8265`"),
        ("http://head:8265", "not the address of a cluster's GCS.*`bgsweep submit FILE --address"),
        ("127.0.0.1:9", r"no Ray cluster there \(Connection refused\); start it, or unset RAY_ADDRESS"),
        ("no-such-host.invalid:6379", r"no Ray cluster there \(.*\); start it, or unset RAY_ADDRESS"),
        ("head", r"name HOST:PORT \(Ray's port is usually 6379\)"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_refused_at_once(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"^RAY_ADDRESS={address}: {told}"):
        ray_address()
    assert time.monotonic() - began < 10


def test_a_server_that_is_no_cluster_is_refused_at_once(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself waits for minutes."""
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener}")
    with pytest.raises(UserError, match="the server there is not Ray"):
        ray_address()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1:9"])
def test_a_sweep_begins_nothing_on_such_a_cluster(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    done = bgsweep("sweep", TINY, "space.background.remove={uniform: [0, 1]}", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: RAY_ADDRESS={address}: ")
    assert time.monotonic() - began < 20
    assert not list(tmp_path.glob("sweeps/*"))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:5000", "the scheme is missing; add http://: http://127.0.0.1:5000"),
        ("localhost:5000", "the scheme is missing; add http://: http://localhost:5000"),
        ("mlflow.example.org:5000/path", "add http://: http://mlflow.example.org:5000/path"),
        ("[::1]:5000", r"add http://: http://\[::1\]:5000"),
        ("./mlruns", "not a server .* or a database .*; for runs in a folder unset it and name the folder by --store"),
        ("file:///tmp/mlruns", "not a server .* or a database"),
        ("http:/127.0.0.1:5000", "not a server"),
        ("http://127.0.0.1:port", "not an address; write http://HOST:PORT"),
    ],
)
def test_a_wrong_tracking_address_is_told_with_the_right_one(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match=rf"^MLFLOW_TRACKING_URI=.*: .*{told}"):
        tracking_address()


@pytest.mark.parametrize("address", ["sqlite:////tmp/mlflow.db", "postgresql://me:secret@host/db", "databricks", ""])
def test_databases_and_databricks_are_left_to_mlflow(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert (tracking_address() or "") == address


@pytest.mark.parametrize("dialect", ["mysql+nodriver", "mysql+pymysql"])
def test_a_database_without_its_driver_is_one_line(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{dialect}://me:PLANTED@127.0.0.1:9/db")
    done = bgsweep("models", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "PLANTED" not in done.stderr


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:PLANTED@host:5000/x", "http://host:5000/x"),
        ("http://me:PLA@PLANTED@host", "http://host"),
        ("http://me:PLA/NTED@host:1", "http://host:1"),
        ("https://PLANTED@host", "https://host"),
        ("me:PLANTED@host:5000", "host:5000"),
        (
            "postgresql+psycopg2://me:PLANTED@host/db?sslpassword=PLANTED",
            "postgresql+psycopg2://host/db?sslpassword=***",
        ),
        ("s3://bucket/x?access_key=PLANTED&secret_key=PLANTED&region=us", None),
        ("http://host/x?X-Amz-Signature=PLANTED", "http://host/x?X-Amz-Signature=***"),
        ("two: 'http://a:PLANTED@c', http://d:PLANTED@f!", "two: 'http://c', http://f!"),
        ("abfs://account:PLANTED@container/x", "abfs://container/x"),
    ],
)
def test_what_is_secret_in_an_address_is_not_shown(address: str, shown: str | None) -> None:
    found = without_password(address)
    assert "PLANTED" not in found and "NTED" not in found
    assert shown is None or found == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/a@b",
        "s3://bucket/a@b",
        "models:/NAME@champion",
        "abfs://container@account.dfs.core.windows.net/x",
        "sqlite:////home/me/x@y/mlflow.db",
        "timm:hf-hub:a/b@revision",
        "at 12:30:11 by me@host",
    ],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    assert without_password(text) == text
