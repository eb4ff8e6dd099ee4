"""Tell somebody who is away that a sweep has ended: a webhook, and a command of the user's."""

import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from bgsweep.addresses import webhook_host
from bgsweep.errors import one_line, without_password

VARIABLE = "BGSWEEP_NOTIFY"
"""Environment variable of a webhook's address, which other users of a machine see among a command's arguments."""

_TRIES, _PATIENCE, _COMMAND_PATIENCE = 3, 10.0, 600.0  # seconds

_log = logging.getLogger(__name__)


def announced(run: Callable[[], dict[str, Any]], title: str, url: str | None, command: str | None) -> dict[str, Any]:
    """Run a sweep, and tell how it ended, well or not; returns and raises as ``run``.

    Args:
        title: the sweep's name or file, for where it ends before it has a name.
        url: a webhook, which gets ``{"text": …}`` as JSON by POST, as Slack, Mattermost and others read it.
        command: a line for the shell, which gets `verdict` as JSON on its standard input.
    """
    try:
        result = run()
    except BaseException as error:
        _tell(verdict(title, error=error), url, command, tries=1 if isinstance(error, KeyboardInterrupt) else _TRIES)
        raise
    _tell(verdict(title, result), url, command)
    return result


def verdict(title: str, result: Mapping[str, Any] | None = None, error: BaseException | None = None) -> dict[str, Any]:
    """The end of a sweep: ``sweep``, ``state`` (ended, failed or interrupted), ``text`` in a sentence, ``result``."""
    if result is not None:
        name = result["sweep"]
        return {"sweep": name, "state": "ended", "text": f"Sweep {name} has ended: {_winner(result)}", "result": result}
    if isinstance(error, KeyboardInterrupt):
        return {"sweep": title, "state": "interrupted", "text": f"Sweep {title} was interrupted", "result": None}
    reason = one_line(error) if error is not None else ""
    return {"sweep": title, "state": "failed", "text": f"Sweep {title} has failed: {reason}", "result": None}


def _winner(result: Mapping[str, Any]) -> str:
    best, baseline, model = result["best"], result.get("baseline"), result["model"]
    states = [trial["status"] for trial in result["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    text = f"{best['trial']} won ({counts}), {_score(best)}"
    if baseline:
        text += f" against {_score(baseline).removeprefix('kNN ')} without background augmentation"
    return f"{text}; {model['name']} version {model['version']} is {model['alias']}: {model['reason']}"


def _score(encoder: Mapping[str, Any]) -> str:
    """An encoder's accuracy on the test split; without classes its first metric."""
    metrics = encoder["metrics"]
    if metrics["knn_top1"] is not None:
        return f"kNN {100 * metrics['knn_top1']:.1f} %"
    name, value = next(iter(metrics["unlabelled"].items()))
    return f"{name.removeprefix('test/')} {value:.4g}"


def _tell(told: dict[str, Any], url: str | None, command: str | None, tries: int = _TRIES) -> None:
    if url:
        _post(url, {"text": told["text"]}, tries)
    if command:
        _run(command, told)


def _post(url: str, body: Mapping[str, str], tries: int) -> None:
    """POST to a webhook. Whoever knows its address can write to it, so that messages name its host only."""
    content = json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"}, method="POST")
    reason = ""
    for number in range(tries):
        if number:
            time.sleep(2**number)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE):
                return
        except urllib.error.HTTPError as error:
            reason = f"it answers {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except Exception as error:  # of sockets, TLS, proxies, malformed answers
            reason = one_line(error).replace(url, "its address")
    _log.warning("the webhook at %s was not told that the sweep has ended: %s", webhook_host(url), reason)


def _run(command: str, told: Mapping[str, Any]) -> None:
    variables = {"BGSWEEP_SWEEP": told["sweep"], "BGSWEEP_STATE": told["state"], "BGSWEEP_TEXT": told["text"]}
    try:
        done = subprocess.run(
            command,
            shell=True,
            input=json.dumps(told),
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **variables},
            timeout=_COMMAND_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("the command at the sweep's end did not run to its end: %s", one_line(error))
        return
    print(done.stdout, end="", file=sys.stderr)
    if done.returncode:
        last = without_password((done.stderr.strip().splitlines() or [""])[-1])
        _log.warning("the command at the sweep's end failed with exit code %d: %s", done.returncode, last)
