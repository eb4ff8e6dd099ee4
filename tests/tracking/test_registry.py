"""Versions as `bgsweep models` lists them, and an alias given by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from bgsweep.cli.main import main
from bgsweep.config import SweepConfig
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.registry import add_version, give_alias

LINEAGE = {
    "sweep": "study-1",
    "trial": "t03",
    "digest": "0123456789abcdef",
    "images_digest": "1111",
    "masks_digest": "2222",
    "git_commit": "abcdef0123",
}


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two versions, of which the second is a challenger."""
    with Tracker(tracking_uri(tmp_path)) as tracker:
        for version, alias in ((1, "champion"), (2, "challenger")):
            run = tracker.pretrain_run("one", SweepConfig())
            model = tracker.client.create_logged_model(tracker.experiment_id, "encoder", source_run_id=run).model_id
            tags = {**LINEAGE, "test_knn_top1": "0.5000", "decision": alias, "reason": f"because {version}"}
            assert add_version(tracker, run, model, "encoder", tags) == version
            give_alias(tracker, "encoder", version, alias)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_models_have_their_numbers_their_lineage_and_the_reason_of_their_alias(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = answer(capsys, "models", "--store", str(store))["models"]
    assert model["name"] == "encoder"
    assert [version["version"] for version in model["versions"]] == [2, 1]
    newest = model["versions"][0]
    assert newest["aliases"] == ["challenger"] and newest["reason"] == "because 2"
    assert newest["numbers"] == {"test/knn/top1": 0.5} and newest["lineage"] == LINEAGE
    assert main(["models", "encoder", "--store", str(store)]) == 0
    page = capsys.readouterr().out
    for text in ("50.0", "study-1", "t03", "0123456789abcdef", "1111", "2222", "abcdef01", "2  because 2"):
        assert text in page


def test_a_version_promoted_by_hand_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "promote", "encoder", "challenger", "--store", str(store))
    assert found == {"name": "encoder", "version": 2, "alias": "champion", "before": 1}
    second, first = answer(capsys, "models", "encoder", "--store", str(store))["models"][0]["versions"]
    assert second["aliases"] == ["champion"] and first["aliases"] == []
    assert second["decision"] == "champion" and second["reason"].startswith("set to champion manually by ")
    assert second["reason"].endswith("; before: version 1")


def test_a_version_keeps_the_alias_challenger_that_it_is_given(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("challenger", "1"):
        found = answer(capsys, "promote", "encoder", version, "--alias", "challenger", "--store", str(store))
        versions = answer(capsys, "models", "encoder", "--store", str(store))["models"][0]["versions"]
        assert "challenger" in {each["version"]: each["aliases"] for each in versions}[found["version"]]


def test_what_is_not_there_is_said_with_what_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["promote", "encoder", "7"], "error: encoder: no version 7; there are: 2, 1, challenger, champion"),
        (["promote", "encodr", "1"], "error: encodr: no such registered model; did you mean encoder?"),
        (["models", "other"], "error: other: no such registered model; there are: encoder"),
    ):
        assert main([*arguments, "--store", str(store)]) == 2
        assert capsys.readouterr().err.strip() == told


def test_a_store_without_models_has_none_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "models", "--store", str(tmp_path)) == {"models": []}
    assert not (tmp_path / "mlflow.db").exists()
