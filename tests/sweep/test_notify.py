"""Somebody who is away is told how a sweep has ended, and no sweep suffers from it."""

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgsweep.errors import UserError
from bgsweep.sweep import driver, notify
from bgsweep.sweep.notify import announced
from tests.command import bgsweep

RESULT = {
    "sweep": "one",
    "trials": [{"status": "completed"}, {"status": "stopped"}],
    "best": {"trial": "t01", "metrics": {"knn_top1": 0.288}},
    "baseline": {"trial": "t00", "metrics": {"knn_top1": 0.264}},
    "model": {"name": "tiny", "version": 3, "alias": "champion", "reason": "better by more than the noise"},
}
SENTENCE = (
    "Sweep one has ended: t01 won (1 completed, 1 stopped), kNN 28.8 % against 26.4 % without background augmentation; "
    "tiny version 3 is champion: better by more than the noise"
)


class Hook:
    """A webhook that answers with the statuses given, then with 200."""

    def __init__(self, statuses: list[int]) -> None:
        self.bodies: list[dict[str, Any]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(statuses.pop(0) if statuses else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/B0/S3CRET"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def statuses() -> list[int]:
    return []


@pytest.fixture
def hook(statuses: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(notify.time, "sleep", lambda seconds: None)
    made = Hook(statuses)
    yield made
    made.server.shutdown()


def test_the_verdict_is_a_sentence_as_slack_reads_it(hook: Hook) -> None:
    assert announced(lambda: RESULT, "file", hook.url, None) is RESULT
    assert hook.bodies == [{"text": SENTENCE}]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("no trial ran to its end"), "Sweep file has failed: no trial ran to its end"),
        (KeyboardInterrupt(), "Sweep file was interrupted"),
    ],
)
def test_a_bad_end_is_told_and_raised(hook: Hook, error: BaseException, text: str) -> None:
    def fail() -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        announced(fail, "file", hook.url, None)
    assert hook.bodies == [{"text": text}]


@pytest.mark.parametrize(("statuses", "calls", "told"), [([503], 2, False), ([404], 1, True), ([500] * 9, 3, True)])
def test_a_webhook_that_refuses_is_a_warning_without_its_address(
    hook: Hook, statuses: list[int], calls: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert announced(lambda: RESULT, "file", hook.url, None) is RESULT
    assert len(hook.bodies) == calls
    assert ("the webhook at 127.0.0.1 was not told" in caplog.text) == told and "S3CRET" not in caplog.text


def test_a_webhook_that_is_not_there_costs_no_sweep_its_result(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.server.server_close()
    with caplog.at_level(logging.WARNING):
        assert announced(lambda: RESULT, "file", "http://127.0.0.1:9/S3CRET", None) is RESULT
    assert "was not told" in caplog.text and "S3CRET" not in caplog.text


def test_a_command_gets_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announced(lambda: RESULT, "file", None, f'cat > {tmp_path}/verdict; echo "$BGSWEEP_STATE: $BGSWEEP_SWEEP"')
    told = json.loads((tmp_path / "verdict").read_text())
    assert told == {"sweep": "one", "state": "ended", "text": SENTENCE, "result": RESULT}
    assert capsys.readouterr() == ("", "ended: one\n")


def test_a_command_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert announced(lambda: RESULT, "file", None, "echo no such mailbox >&2; exit 3") is RESULT
    assert "failed with exit code 3: no such mailbox" in caplog.text


def test_the_command_line_takes_both_and_refuses_what_is_no_address(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_bytes((Path(__file__).parents[1] / "tiny.yaml").read_bytes())

    def fail(*_: Any) -> dict[str, Any]:
        raise UserError("no room")

    monkeypatch.setattr(driver, "sweep", fail)
    sweep = ["sweep", "tiny.yaml", "space.background.remove={uniform: [0, 0.5]}"]
    done = bgsweep(*sweep, "--notify", hook.url, "--on-end", "echo $BGSWEEP_TEXT", folder=tmp_path)
    assert (done.returncode, hook.bodies) == (2, [{"text": "Sweep tiny has failed: no room"}])
    assert done.stderr == "Sweep tiny has failed: no room\nerror: no room\n"
    monkeypatch.setenv("BGSWEEP_NOTIFY", hook.url)
    bgsweep(*sweep, folder=tmp_path)
    assert len(hook.bodies) == 2
    for wrong in ("hooks.example.org/S3CRET", "http:///S3CRET", "https://host/S3 CRET", "file:///S3CRET"):
        refused = bgsweep(*sweep, "--notify", wrong, folder=tmp_path)
        assert refused.returncode == 2 and "--notify: not the address of a webhook" in refused.stderr
        assert "CRET" not in refused.stderr
    assert len(hook.bodies) == 2
