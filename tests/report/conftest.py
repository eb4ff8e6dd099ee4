"""A browser; and sweeps that nobody ran, written by the journal's own writer, for pages of hundreds of trials."""

import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import load
from bgsweep.config.evaluation import VARIANTS
from bgsweep.report.page import SweepResults
from bgsweep.sweep.events import Ended, Result, Started
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.report import sweep_results
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord

TINY = Path(__file__).parents[1] / "tiny.yaml"
EPOCHS, RUNG = 32, 8
QUIET = ("GPU stall due to ReadPixels",)  # of the driver that draws without a GPU


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens HTML in a headless Chromium, and holds that nothing goes wrong and nothing is fetched."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("pages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        told: list[str] = []

        def see(html: str, **settings: Any) -> Any:
            path = folder / "page.html"
            path.write_text(html, encoding="utf-8")
            view = browser.new_page(**settings)
            view.on("console", lambda line: told.append(line.text))
            view.on("pageerror", lambda error: told.append(str(error)))
            view.on("request", lambda one: told.append(one.url) if one.url.startswith("http") else None)
            view.goto(path.as_uri())
            view.wait_for_selector("body[data-drawn]", timeout=60_000)
            return view

        yield see
        browser.close()
        assert [line for line in told if not any(word in line for word in QUIET)] == []


def backgrounds(best: float) -> dict[str, float]:
    shares = {name: best - 0.03 * place for place, name in enumerate(VARIANTS)}
    return shares | {"bg_gap": shares["mixed_same"] - shares["mixed_rand"]}


def verdict(best: float, trial: str, params: dict[str, Any]) -> dict[str, Any]:
    metrics = {"knn_top1": best, "linear_top1": best, "backgrounds": backgrounds(best)}
    metrics["backgrounds_linear"] = backgrounds(best + 0.05)
    return {"trial": trial, "params": params, "epochs": EPOCHS, "metrics": metrics, "protocol": {}}


def told(folder: Path, count: int) -> SweepResults:
    """A finished sweep of ``count`` trials in which only ``background.remove`` matters, with one outlier."""
    space = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.001, 1.0]}"]
    space += ["space.background.fill={choice: [black, noise]}", "evaluate.variant=mixed_rand"]
    file = load(TINY, [*space, f"training.epochs={EPOCHS}", f"search.trials={count}"])
    journal, draws = Journal(folder), random.Random(0)
    params: dict[str, Any] = {}
    for number in range(count):
        params = {
            "background.remove": 0.0 if number == 0 else draws.uniform(0, 0.8),
            "optimizer.lr": 10 ** draws.uniform(-3, 0),
            "background.fill": draws.choice(["black", "noise"]),
        }
        record = TrialRecord(f"t{number:02d}", params, None if number else "baseline", f"{number:016x}", "run")
        journal.write(Started(trial=record))
        half = RUNG // 2  # an epoch with a checkpoint and no evaluation
        journal.write(Result(id=record.id, epoch=half, metrics={"loss": 4.0}, seconds=2.0 * half))
        last = EPOCHS if number % 3 == 0 else RUNG
        for epoch in range(RUNG, last + 1, RUNG):
            gain = 0.3 * math.exp(-((params["background.remove"] - 0.4) ** 2) / 0.05) + draws.gauss(0, 0.02)
            value = 0.2 + gain * epoch / EPOCHS if number != 5 else 0.0
            record.metrics = {"knn_top1": value, "bg_gap": 0.4 - gain, "mixed_same": 0.5, "loss": 4.0}
            record.epochs, record.seconds = epoch, 2.0 * epoch
            journal.write(Result(id=record.id, epoch=epoch, metrics=record.metrics, seconds=record.seconds))
        record.status = "completed" if last == EPOCHS else "stopped"
        journal.write(Ended(trial=record))
    result = {"best": verdict(0.6, record.id, params), "baseline": verdict(0.5, "t00", params)}
    result |= {"untrained": {"metrics": verdict(0.3, "", {})["metrics"], "protocol": {}}}
    result["model"] = {"name": "tiny", "version": 1, "alias": "champion"}
    manifest = {"file": dump(file), "digest": "0123456789abcdef", "parent": "run", "owner": {}, "result": result}
    tags = {"version.torch": "2.14.1", "python": "3.11.2", "mlflow.user": "somebody"}
    sets = [{"context": "train", "name": "sample </script>", "count": 960, "images": "f00d", "masks": "beef"}]
    return sweep_results("tiny-20260101-000000", manifest, read_journal(folder), tags, sets)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return told(tmp_path_factory.mktemp("large"), 200)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return told(tmp_path_factory.mktemp("small"), 6)
