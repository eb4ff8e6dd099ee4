"""Metrics by name: what `search.metric` and `evaluate.metrics` take, and what follows from it."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import SweepConfig, resolve
from bgsweep.config.load import load
from bgsweep.errors import UserError

TINY = Path(__file__).parents[1] / "tiny.yaml"
SWAPS = "validation/reliance/bg_share"


def config(**sections: Any) -> SweepConfig:
    return resolve(sections)


@pytest.mark.parametrize(
    "name", ["bg_share", "reliance", "reliance/bg_share", "validation/reliance/bg_share", "validation/bg_share"]
)
def test_a_metric_has_one_name_in_journals_and_knows_its_direction(name: str) -> None:
    file = config(search={"metric": name})
    assert file.search.metrics == (SWAPS,) and file.search.mode == "min"
    assert [one.name for one in file.measured.metrics] == ["reliance"] and file.evaluate.metrics == ()
    again = resolve(file.model_dump(mode="json", by_alias=True))
    assert again == file


@pytest.mark.parametrize(
    ("metric", "recorded", "mode"),
    [
        (["knn/top1", "validation/knn/bg_gap"], ("knn_top1", "bg_gap"), ("max", "min")),
        (["rankme", "swap_lidar"], ("validation/rankme/rank", "validation/reliance/swap_lidar"), ("max", "max")),
        ("loss", "loss", "min"),
        ("rotation/top1", "validation/rotation/top1", "max"),
    ],
)
def test_earlier_names_stay(metric: Any, recorded: Any, mode: Any) -> None:
    search = config(search={"metric": metric, "scheduler": "none"}).search
    assert (search.metric, search.mode) == (recorded, mode)


def test_a_direction_that_is_given_counts() -> None:
    assert config(search={"metric": "loss", "mode": "max"}).search.signs == {"loss": 1}


def test_metrics_are_configured_by_name_or_with_settings() -> None:
    metrics = ["lidar", {"name": "rankme", "images": 99}, "bg_share", "fg_share"]
    file = config(search={"metric": "rankme"}, evaluate={"metrics": metrics})
    assert [one.name for one in file.measured.metrics] == ["lidar", "rankme", "reliance"]
    assert file.measured.metrics[1].images == 99, "search.metric adds none that is there"  # type: ignore[union-attr]


def test_the_gap_is_measured_where_trials_are_compared_by_it() -> None:
    assert [one.name for one in config(search={"metric": "mixed_rand"}).measured.metrics] == ["bg_gap"]
    assert config(search={"metric": "bg_gap"}, evaluate={"bg_gap": True}).measured.metrics == ()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["search.metric=top1"], "search.metric: top1 is not measured during training; did you mean `knn/top1`?"),
        (["evaluate.metrics=[lidr]"], "evaluate.metrics.0: 'lidr' is not known; did you mean `lidar`?"),
        (["evaluate.metrics=[{name: lidar, views: 1}]"], "evaluate.metrics.0.views: Input should be greater than"),
        (["evaluate.metrics=[lidar, {name: lidar, views: 9}]"], "lidar is named twice, with other settings"),
        (["search.metric=alpha_req/alpha"], "alpha_req/alpha is not measured"),
        (
            ["evaluate.metrics=[{name: alpha_req, first: 200}]"],
            "evaluate.metrics.0.last: the fit takes three eigenvalues or more, from first, 200, on; set it to 202 or",
        ),
        (
            ["search.metric=bg_share", "data.images=.", "data.masks=null", "background={}"],
            "search.metric: reliance needs foreground masks; set data.masks, or name another metric",
        ),
    ],
)
def test_refusals(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(TINY, overrides)
    assert told in str(caught.value) and "\n" not in str(caught.value)
