"""The table of encoders is that of the records, a table for each protocol, and stands in docs as it is made."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another by name, as they do when they are run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_page_is_made_of_the_records(tmp_path: Path) -> None:
    import leaderboard

    records = leaderboard.read(leaderboard.RECORDS)
    assert records and leaderboard.PAGE.read_text(encoding="utf-8") == leaderboard.page(records)
    for one in records:
        protocol = {key: value for key, value in one["protocol"].items() if key != "digest"}
        assert one["protocol"]["digest"] == leaderboard.digest_of(protocol)
        assert one["date"] and one["machine"] and "/" not in one["network"]


def test_records_of_other_protocols_stand_in_tables_of_their_own() -> None:
    import leaderboard

    def record(name: str, gap: float | None, digest: str) -> dict[str, Any]:
        cell = {"value": gap, "lower": None if gap is None else gap - 0.1, "upper": None if gap is None else gap + 0.1}
        protocol = {"digest": digest, "images": digest, "audited": 9, "usable": 8, "classes": 2, "probe": 9}
        base = {"network": "n", "weights": "w", "machine": "m", "date": "d", "seconds": 1.0}
        return {**base, "name": name, "protocol": protocol, "values": {"variants": {"linear/bg_gap": cell}}}

    text = leaderboard.page([record("wide", 0.3, "a"), record("narrow", 0.1, "a"), record("other", None, "b")])
    assert text.index("| narrow |") < text.index("| wide |") < text.index("## b") < text.index("| other |")
    assert "30.0 [20.0, 40.0]" in text and json.dumps("a") not in text
