"""A secret is planted in every channel that takes one, and looked for in all that commands print, log and record."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import bgsweep
from tests.servers import mlflow_server

TINY = Path(__file__).parents[1] / "tiny.yaml"
SECRET = "PLANTED-7f3a"
RANGE = "space.background.remove={uniform: [0, 0.8]}"
WEB = f"http://me:{SECRET}@127.0.0.1:9"
BUCKET = f"s3://AKIA:{SECRET}@bucket/x"
OPTION = f"s3://bucket/x?access_key=AKIA&secret_key={SECRET}"


def holding(folder: Path) -> list[Path]:
    """Files below a folder that hold the secret, in their content or their name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in path.name]


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ({"MLFLOW_TRACKING_URI": WEB}, ["models"]),
        ({"MLFLOW_TRACKING_URI": WEB}, ["promote", "m", "1"]),
        ({"MLFLOW_TRACKING_URI": WEB}, ["pretrain", TINY]),
        ({"MLFLOW_TRACKING_URI": WEB}, ["evaluate", "models:/m@champion", "--suite", "knn"]),
        ({"MLFLOW_TRACKING_URI": WEB}, ["doctor", TINY]),
        ({"MLFLOW_TRACKING_URI": WEB}, ["doctor", TINY, "--json"]),
        ({"MLFLOW_TRACKING_URI": f"me:{SECRET}@127.0.0.1:5000"}, ["models"]),
        ({"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@"}, ["models"]),
        ({"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:port"}, ["models"]),
        ({"MLFLOW_TRACKING_URI": f"postgresql://me:{SECRET}@127.0.0.1:9/db"}, ["models"]),
        ({"MLFLOW_TRACKING_URI": f"postgresql://me:{SECRET}@127.0.0.1:9/db"}, ["doctor"]),
        ({"MLFLOW_TRACKING_URI": f"nodialect://me:{SECRET}@127.0.0.1:9/db"}, ["models"]),
        (
            {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_TRACKING_USERNAME": "me"}
            | {"MLFLOW_TRACKING_PASSWORD": SECRET, "MLFLOW_TRACKING_TOKEN": SECRET},
            ["models"],
        ),
        ({"RAY_ADDRESS": f"ray://me:{SECRET}@head:10001", "RAY_AUTH_TOKEN": SECRET}, ["sweep", TINY, RANGE]),
        ({"RAY_ADDRESS": f"ray://me:{SECRET}@head:10001"}, ["doctor"]),
        ({"BGSWEEP_STORE": BUCKET}, ["status"]),
        ({}, ["status", "--store", BUCKET]),
        ({}, ["sweep", TINY, RANGE, "--store", OPTION]),
        ({}, ["report", "name", "--store", f"gs://me:{SECRET}@bucket/x"]),
        ({}, ["pretrain", TINY, f"data.images={BUCKET}"]),
        ({}, ["pretrain", TINY, f"data.masks={OPTION}"]),
        ({}, ["pretrain", TINY, f"data.pack={BUCKET}"]),
        ({}, ["pretrain", TINY, f"data.pack={BUCKET}", "data.images=x"]),
        ({}, ["masks", "make", BUCKET, "--out", "masks"]),
        ({}, ["masks", "make", "images", "--out", "masks", "--weights", f"https://me:{SECRET}@host/u2net.onnx"]),
        ({}, ["masks", "score", BUCKET, OPTION]),
        ({}, ["masks", "show", BUCKET, "masks"]),
        ({}, ["masks", "train", BUCKET, "--out", "network.onnx"]),
        ({}, ["pack", BUCKET, OPTION, "--out", "pack"]),
        ({}, ["evaluate", BUCKET, TINY]),
        ({}, ["evaluate", BUCKET, "--suite", "knn"]),
        ({}, ["submit", TINY, RANGE, "--address", WEB]),
        ({}, ["submit", TINY, RANGE, "--address", "http://127.0.0.1:9", "--store", BUCKET]),
        ({"SECRET": SECRET}, ["submit", TINY, RANGE, "--address", "http://127.0.0.1:9", "--env", "SECRET"]),
        ({}, ["status", "--address", WEB]),
        ({}, ["stop", "name", "--address", f"ftp://me:{SECRET}@head"]),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(SECRET, "X") if isinstance(value, list) else "-".join(value),
)
def test_no_refusal_shows_a_secret(
    variables: dict[str, str],
    command: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = bgsweep(*command, folder=tmp_path)
    assert done.returncode == 2 or command[0] == "doctor"
    raw = capfd.readouterr()
    assert "Traceback" not in done.stderr + raw.err
    assert SECRET not in done.stdout + done.stderr + raw.out + raw.err + caplog.text
    assert holding(tmp_path) == []


def test_keys_to_a_bucket_are_nowhere(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    for command in (
        ["status", "--store", "s3://bucket/runs"],
        ["status", "--store", "s3://no-such-bucket/runs"],
        ["masks", "make", "s3://no-such-bucket/images", "--out", "masks"],
        ["pretrain", TINY, "data.images=s3://no-such-bucket/images", "data.masks=s3://bucket/masks"],
        ["evaluate", "s3://bucket/checkpoint", TINY],
    ):
        done = bgsweep(*command, folder=tmp_path)
        assert SECRET not in done.stdout + done.stderr + caplog.text
    assert holding(tmp_path) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An MLflow server's address with a password, and the folder of all that it was told."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as (address, start, _):
        start()
        yield address.replace("http://", f"http://me:{SECRET}@"), folder


@pytest.mark.faults  # for its time
def test_what_trains_evaluates_and_searches_records_no_secret(
    server: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, told = server
    logs = Path(tempfile.mkdtemp(prefix="secrets-"))  # Ray's sockets need a short path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAY_TMPDIR", str(logs))

    def run(*arguments: object) -> str:
        done = bgsweep(*arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        raw = capfd.readouterr()
        assert SECRET not in done.stdout + done.stderr + raw.out + raw.err + caplog.text
        return done.stdout

    short = ["training.epochs=1", "register.name=secrets"]
    run("pretrain", TINY, *short)
    trained = json.loads(run("pretrain", TINY, *short, "--json").splitlines()[-1])
    assert trained["tracking_uri"].startswith("http://127.0.0.1:")
    run("evaluate", trained["checkpoint"], "--suite", "knn")
    run("sweep", TINY, RANGE, *short, "search.trials=2", "--name", "secrets")
    run("status", "secrets")
    run("report", "secrets", "--out", "page.html")
    run("models", "secrets", "--json")
    run("promote", "secrets", "1")
    run("evaluate", "models:/secrets@champion", "--suite", "knn", "--json")
    run("doctor", TINY, "--json")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    for folder in (tmp_path, told, logs):
        assert holding(folder) == [], f"the secret is in a file below {folder}"
