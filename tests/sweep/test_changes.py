"""Resuming a sweep with other settings, extending it, trying failed trials again, and learning from earlier sweeps."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from bgsweep.config import SweepConfig, load, resolve
from bgsweep.errors import UserError
from bgsweep.sweep.changes import PARTS, changed, closed, compare_images
from bgsweep.sweep.events import Ended, Event, Learned, Owned, Proposed, Retried, Started, replay
from bgsweep.sweep.journal import Journal, read_journal, read_records
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.searcher import CHECKPOINT, NUMBER, VALUES, TuneSearcher
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.sweep.warm_start import results_of_earlier
from bgsweep.tracking import Tracker, tracking_uri
from tests.command import bgsweep
from tests.inputs import write_images

TINY = Path(__file__).parents[1] / "tiny.yaml"
RANGE = "space.background.remove={uniform: [0.0, 0.8]}"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


def searched(**search: Any) -> SweepConfig:
    space = {"background.remove": {"uniform": [0.0, 0.8]}, "optimizer.lr": {"loguniform": [0.01, 1.0]}}
    return resolve({"space": space, "search": {"baseline": False, "trials": 8, **search}})


def record(number: int, values: dict[str, Any], status: Any = "completed", score: float = 0.5) -> TrialRecord:
    return TrialRecord(f"t{number:02d}", values, None, "d", "run", status, 200, {"knn_top1": score}, f"c{number}")


def draws(searcher: TuneSearcher, count: int) -> list[dict[str, Any]]:
    found = [searcher.suggest(str(number)) for number in range(count)]
    assert all(isinstance(each, dict) for each in found)
    return found  # type: ignore[return-value]


def events_of(values: list[dict[str, Any]]) -> list[Event]:
    events: list[Event] = []
    for number, each in enumerate(values):
        events.append(Proposed(id=f"t{number:02d}", values=each))
        ended = record(number, each, score=-abs(each["background.remove"] - 0.5))
        events += [Started(trial=record(number, each, "running")), Ended(trial=ended)]
    return events


@pytest.mark.parametrize("algorithm", ["optuna", "random"])
def test_where_the_sampler_draws_other_values_today_those_of_the_journal_are_used(
    algorithm: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = searched(algorithm=algorithm, trials=12)
    values = [each[VALUES] for each in draws(TuneSearcher(config), 3)]
    values[1] = {**values[1], "optimizer.lr": values[1]["optimizer.lr"] * (1 + 2**-52)}  # one ulp on another CPU
    values[2] = {"background.remove": 0.123, "optimizer.lr": 0.5}  # another version of Optuna
    past = events_of(values)[:-1]  # t02 was running
    found = draws(TuneSearcher(config, past), 10)
    assert (found[0][NUMBER], found[0][VALUES]) == (2, values[2])
    assert [each[NUMBER] for each in found] == list(range(2, 12))
    (warning,) = caplog.messages
    assert "the values of 2 trials (t01, t02) are those of the journal" in warning


def test_tpe_learns_from_the_journal_s_values(caplog: pytest.LogCaptureFixture) -> None:
    """Forty trials that this sampler would not have drawn, good near 0.5: then it proposes values near 0.5."""
    config = searched(trials=60)
    values = [{"background.remove": 0.8 * number / 40, "optimizer.lr": 0.1} for number in range(40)]
    found = draws(TuneSearcher(config, events_of(values)), 20)
    assert sum(abs(each[VALUES]["background.remove"] - 0.5) for each in found) / 20 < 0.16, "random draws: 0.21"
    assert "40 trials" in caplog.text


def test_a_damaged_journal_that_lacks_a_proposal_is_replayed() -> None:
    config = searched(algorithm="random")
    values = [each[VALUES] for each in draws(TuneSearcher(config), 4)]
    past = [event for event in events_of(values) if not (isinstance(event, Proposed) and event.id == "t01")]
    assert [each[NUMBER] for each in draws(TuneSearcher(config, past), 4)] == [4, 5, 6, 7]


def test_a_sweep_with_more_trials_continues_with_the_draws_that_a_longer_one_would_have_made() -> None:
    """TPE's number of random trials at the start is that of the sweep as it began."""
    config, longer = searched(trials=16), searched(trials=64)
    values = [each[VALUES] for each in draws(TuneSearcher(config), 6)]
    past = [Owned(token=1, trials=16), *events_of(values)]
    plain = draws(TuneSearcher(config, past), 10)
    more = draws(TuneSearcher(longer, past), 58)
    assert more[:10] == plain and len({each[NUMBER] for each in more}) == 58


def test_a_failed_trial_is_tried_again_from_its_checkpoint() -> None:
    config = searched(trials=3)
    values = [each[VALUES] for each in draws(TuneSearcher(config), 3)]
    past = events_of(values)
    past[-1] = Ended(trial=record(2, values[2], "failed"))
    assert TuneSearcher(config, past).suggest("again") == "FINISHED"
    past.append(Retried(id="t02"))
    (again,) = draws(TuneSearcher(config, past), 1)
    assert (again[NUMBER], again[VALUES], again[CHECKPOINT]) == (2, values[2], "c2")
    assert (replay(past)["t02"].status, replay(past)["t02"].failures) == ("running", 0)


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        (["search.hang_minutes=300", "search.trials=64", "search.concurrent=8", "register.name=other"], ""),
        (["search.trials=8", "training.epochs=3"], ""),  # as they are
        (["data.loader_workers=2", "data.cache=false", "data.loader_memory_gb=1", "training.checkpoint_every=2"], ""),
        (["workers={count: 2, cpus: 2}", "method.split_bn=1"], ""),
        (["workers.count=2"], "workers.count: cannot change within sweep one"),  # other groups of MoCo's BatchNorm
        (["training.epochs=4"], "training.epochs: cannot change within sweep one"),
        (["workers.labels=[zone=b]", "workers.memory_gb=4", "search.budget.hours=3"], ""),
        (["search.seed=1", "search.trials=64", "optimizer.lr=0.5"], "optimizer.lr, search.seed: cannot change within"),
        (["space.background.remove={uniform: [0, 1]}"], "space.background.remove: cannot change within sweep one"),
        (["search.warm_start=[other]"], "search.warm_start: cannot change within sweep one"),
        (["evaluate.knn.k=3"], "evaluate.knn.k: cannot change before all trials of one have ended, 8 have not"),
    ],
)
def test_what_does_not_change_finished_trials_may_change(override: list[str], refused: str) -> None:
    file = dump(load(TINY, [RANGE, "search.trials=8", "training.epochs=3", "method.split_bn=2"]))
    records = {"t00": record(0, {"background.remove": 0.5}, "running")}
    if refused:
        with pytest.raises(UserError, match=refused):
            changed("one", file, override, records)
        return
    config = changed("one", file, override, records)
    assert config.search.trials in (8, 64)


def test_workers_may_change_only_where_no_trial_s_groups_of_batch_norm_do() -> None:
    space = ["space={method.split_bn: {choice: [2, 4]}}"]
    file = dump(load(TINY, [*space, "method.split_bn=2"]))
    words = ["workers.count=2", "method.split_bn=1"]
    assert changed("one", file, words, {}).experiment.workers.count == 2
    with pytest.raises(UserError, match=r"workers\.count: cannot change within sweep one"):
        changed("one", file, words, {"t00": record(0, {"method.split_bn": 4})})


def test_images_at_another_path_must_be_the_same() -> None:
    file, images = dump(load(TINY)), {"train": "a", "validation": "b", "test": "c"}
    there = load(TINY, ["data={images: elsewhere, masks: masks, resize: 24}"])
    assert compare_images("one", {"file": file, "images": images}, there, images) == []
    with pytest.raises(UserError, match=r"data\.masks or data\.pack has other images or masks in test"):
        compare_images("one", {"file": file, "images": images}, there, images | {"test": "d"})
    (line,) = compare_images("one", {"file": file, "images": images}, load(TINY), images | {"test": "d"})
    assert line == "test: the images or masks have changed since one began"
    (line,) = compare_images("one", {"file": file}, there, images)
    assert "those at the new path are not compared" in line
    assert compare_images("one", {"file": file}, load(TINY), images) == []


def test_evaluation_settings_change_only_with_the_last_trial_behind() -> None:
    file = dump(load(TINY, [RANGE, "search.trials=1"]))
    ended = {"t00": record(0, {"background.remove": 0.5})}
    assert changed("one", file, ["evaluate.knn.k=3"], ended).evaluate.knn.k == 3
    with pytest.raises(UserError, match=r"1 have not; resume it with evaluate\.knn\.k=20 first"):
        changed("one", file, ["evaluate.knn.k=3", "search.trials=2"], ended)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["register.name=other", "evaluate.knn.k=3", "search.concurrent=8"], [*PARTS]),
        (["search.confirm={top: 3}"], ["search"]),
        (["search.confirm.top=3", "register.name=other"], ["search"]),
        (["search.trials=8"], []),  # as many as there were to be
        (["search.budget={hours: 3}"], []),
        (["search.budget.hours=3", "register.name=other"], []),
    ],
)
def test_what_was_left_out_by_a_stop_is_trained_only_where_it_is_asked_for(words: list[str], left: list[str]) -> None:
    for over in ({"closed": [*PARTS]}, {"result": {"model": 1}}):  # the end failed; an older version's, which did not
        assert closed(over, words) == left
        assert closed(over, words, retry_failed=True) == []
    assert closed({}, words) == [], "the driver died in the middle of the search"


def test_a_stopped_sweep_is_evaluated_otherwise_only_without_more_trials() -> None:
    file = dump(load(TINY, [RANGE, "search.trials=8"]))
    ended = {"t00": record(0, {"background.remove": 0.5}), "t01": record(1, {"background.remove": 0.4}, "stopped")}
    assert changed("one", file, ["evaluate.knn.k=3"], ended, PARTS).evaluate.knn.k == 3
    with pytest.raises(UserError, match=r"evaluate\.knn\.k: .* have ended, 6 have not"):
        changed("one", file, ["evaluate.knn.k=3"], ended)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["search.trials=4"], "2 have not"),
        (["search.confirm={top: 1}"], "search.confirm trains 1 more"),
        ([], "--retry-failed runs 1 again"),
    ],
)
def test_no_trial_is_measured_otherwise_than_those_it_is_compared_with(words: list[str], left: str) -> None:
    """Neither in one call nor in two, the first of which evaluates the ended sweep otherwise."""
    then = ["evaluate.variant=original", "evaluate.metrics=[]"]
    file = dump(load(TINY, [RANGE, "search.trials=2", *then]))
    records = {"t00": record(0, {"background.remove": 0.5}), "t01": record(1, {"background.remove": 0.4}, "failed")}
    now = [
        "evaluate.variant=mixed_rand",
        "evaluate.metrics=[rankme]",
        "evaluate.batch_size=8",
        "evaluate.linear.epochs=9",
    ]
    other = changed("one", file, now, records, PARTS)
    measured, over = file["evaluate"], closed({"closed": PARTS}, words)
    with pytest.raises(UserError, match=r"^evaluate.batch_size, .*evaluate.variant: ") as together:
        changed("one", file, [*now, *words], records, over, measured, not words)
    with pytest.raises(UserError, match=r"^evaluate\.metrics, evaluate\.variant: cannot change before") as apart:
        changed("one", dump(other), words, records, over, measured, not words)
    for told in (str(together.value), str(apart.value)):
        assert left in told and "evaluate.variant=original first, by which its trials were measured" in told
        assert "'evaluate.metrics=[]'" in told
    again = changed("one", dump(other), [*then, *words], records, over, measured, not words)
    assert (again.evaluate.variant, again.evaluate.batch_size) == ("original", 8)


def earlier(store: Path, name: str = "first") -> None:
    space = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.001, 1.0]}"]
    folder = store / "sweeps" / name
    config = load(TINY, space)
    write_manifest(folder, {"file": dump(config), "digest": "d", "parent": "p", "owner": ELSEWHERE})
    journal = Journal(folder)
    for number, (remove, status) in enumerate(
        [(0.1, "completed"), (0.5, "stopped"), (0.7, "completed"), (0.2, "failed"), (0.3, "running")]
    ):
        one = record(number, {"background.remove": remove, "optimizer.lr": 0.1}, status, score=remove)
        journal.write(Started(trial=one))
        if status != "running":
            journal.write(Ended(trial=one))


def test_a_new_sweep_learns_from_an_earlier_one_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    earlier(tmp_path)
    config = load(TINY, ["space.background.remove={uniform: [0.0, 0.6]}", "optimizer.lr=0.1"])
    config = resolve({**dump(config), "search": {"warm_start": ["first"], "trials": 8}})
    found, notes = results_of_earlier(config, tmp_path)
    assert [(event.source, event.values, event.status) for event in found] == [
        ("t00", {"background.remove": 0.1}, "completed"),
        ("t01", {"background.remove": 0.5}, "stopped"),
    ]
    assert notes == [
        "search.warm_start: 2 trials of first are learned from; 1 left out: background.remove outside the space"
    ]
    other = resolve({**dump(config), "experiment": dump(load(TINY, ["optimizer.lr=0.2"]))["experiment"]})
    found, notes = results_of_earlier(other, tmp_path)
    assert found == [] and "2 left out: optimizer.lr has another value" in notes[0]
    wrong = resolve({**dump(config), "search": {"warm_start": ["frist"]}})
    with pytest.raises(UserError, match=r"search\.warm_start: .*no sweep frist; did you mean first\?"):
        results_of_earlier(wrong, tmp_path)


def test_a_new_sweep_learns_from_the_trials_of_an_mlflow_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of completed and stopped ones only, whose store is not needed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load(TINY, [RANGE, "space.optimizer.lr={loguniform: [0.01, 1.0]}", "name=elsewhere"])
    ends = [(0.1, "completed"), (0.5, "stopped"), (0.7, "completed"), (0.2, "failed"), (0.3, None)]
    with Tracker(tracking_uri(tmp_path), config.name) as tracker:
        parent = tracker.sweep_run("first", config)
        for number, (remove, status) in enumerate(ends):
            values = {"background.remove": remove, "optimizer.lr": 0.1}
            run = tracker.trial_run(parent, f"t{number:02d}", config.experiment.with_values(values), searched=values)
            for epoch in (1, 2):
                tracker.log_metrics(run, epoch, {"loss": 1.0, "knn_top1": remove * epoch})
            if status:
                tracker.set_tag(run, "bgsweep.status", status)
    new = ["space.background.remove={uniform: [0.0, 0.6]}", "optimizer.lr=0.1"]
    config = resolve({**dump(load(TINY, new)), "search": {"warm_start": ["mlflow:elsewhere"], "trials": 8}})
    found, notes = results_of_earlier(config, tmp_path)
    assert [(event.sweep, event.source, event.values, event.status, event.metrics) for event in found] == [
        ("first", "t00", {"background.remove": 0.1}, "completed", {"knn_top1": 0.2}),
        ("first", "t01", {"background.remove": 0.5}, "stopped", {"knn_top1": 1.0}),
    ]
    left_out = "1 left out: background.remove outside the space"
    assert notes == [f"search.warm_start: 2 trials of mlflow:elsewhere are learned from; {left_out}"]
    other = resolve({**dump(config), "experiment": dump(load(TINY, ["optimizer.lr=0.2"]))["experiment"]})
    assert "2 left out: optimizer.lr has another value" in results_of_earlier(other, tmp_path)[1][0]
    wrong = resolve({**dump(config), "search": {"warm_start": ["mlflow:nowhere"]}})
    with pytest.raises(
        UserError, match=r"search\.warm_start: MLflow at .* no experiment nowhere; name one of: .*elsewhere"
    ):
        results_of_earlier(wrong, tmp_path)


def test_tpe_begins_where_the_earlier_sweep_was_good(tmp_path: Path) -> None:
    config = searched(trials=20, scheduler="none")
    learned: list[Event] = [
        Learned(
            sweep="first",
            source=f"t{number:02d}",
            values={"background.remove": 0.8 * number / 40, "optimizer.lr": 0.1},
            status="completed",
            metrics={"knn_top1": -abs(0.8 * number / 40 - 0.5)},
        )
        for number in range(40)
    ]
    near = draws(TuneSearcher(config, learned), 20)
    assert sum(abs(each[VALUES]["background.remove"] - 0.5) for each in near) / 20 < 0.16, "random draws: 0.21"
    journal = Journal(tmp_path)
    for event in learned:
        journal.write(event)
    assert read_journal(tmp_path) == learned and read_records(tmp_path) == {}


def test_retry_failed_needs_a_sweep(tmp_path: Path) -> None:
    done = bgsweep("sweep", TINY, RANGE, "--retry-failed", folder=tmp_path)
    assert done.returncode == 2 and "--retry-failed needs the name of a sweep" in done.stderr
    for words, message in (
        (["--address", "http://127.0.0.1:1"], "submit: no file is given"),
        (
            ["mine.yaml", "--resume", "one", "--address", "http://127.0.0.1:1"],
            "submit: both mine.yaml and --resume one",
        ),
    ):
        done = bgsweep("submit", *words, folder=tmp_path)
        assert done.returncode == 2 and message in done.stderr


@pytest.mark.faults  # for its time
def test_a_sweep_is_extended_retried_and_learned_from(tmp_path: Path) -> None:
    """Real trials, after those of an earlier sweep: one fails for good; it is tried again, and two more are added."""
    earlier(tmp_path)
    common = ["training.epochs=1", "search.scheduler=none", "--store", tmp_path, "--json"]
    space = [RANGE, "space.points=[{}]", "optimizer.lr=0.1", "register.name=tiny", "search.warm_start=[first]"]
    done = bgsweep("sweep", TINY, *space, "search.trials=2", "--name", "one", *common, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "search.warm_start: 3 trials of first are learned from" in done.stderr
    failed = read_records(tmp_path / "sweeps" / "one")["t01"]
    failed.status, failed.error, failed.failures = "failed", "its node died", 3
    lines = [event for event in read_journal(tmp_path / "sweeps" / "one") if not _is_end(event, "t01")]
    _rewrite(tmp_path / "sweeps" / "one", [*lines, Ended(trial=failed)])
    again = bgsweep(
        *("sweep", "--resume", "one", "search.trials=4", "--retry-failed", "--store", tmp_path, "--json"),
        folder=tmp_path,
    )
    assert again.returncode == 0, again.stderr
    records = read_records(tmp_path / "sweeps" / "one")
    assert {name: each.status for name, each in records.items()} == dict.fromkeys(
        ("t00", "t01", "t02", "t03"), "completed"
    )
    assert records["t01"].failures == 0
    assert sum(isinstance(event, Learned) for event in read_journal(tmp_path / "sweeps" / "one")) == 3


@pytest.mark.faults
def test_a_sweep_goes_on_where_its_images_have_moved_to(tmp_path: Path) -> None:
    """A trial that failed goes on from its checkpoint, and the best is evaluated, with no image at the old path."""
    write_images(tmp_path)
    search = ["space.optimizer.lr={uniform: [0.01, 0.1]}", "search.trials=2", "search.scheduler=none"]
    store = ["--store", tmp_path / "runs", "--json"]
    done = bgsweep("sweep", "mine.yaml", *search, "register.name=tiny", "--name", "one", *store, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "runs" / "sweeps" / "one"
    failed = read_records(sweep)["t01"]
    failed.status, failed.error, failed.failures = "failed", "its node died", 3
    _rewrite(sweep, [*(event for event in read_journal(sweep) if not _is_end(event, "t01")), Ended(trial=failed)])
    (tmp_path / "photos").rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "others")
    first = next((tmp_path / "others").glob("test/*/*.jpg"))
    assert cv2.imwrite(str(first), 255 - cv2.imread(str(first)))
    resumed = ("sweep", "--resume", "one", "--retry-failed", "data.loader_workers=1", *store)
    refused = bgsweep(*resumed, "data.images=others", folder=tmp_path)
    assert refused.returncode == 2 and "has other images or masks in test than the sweep began with" in refused.stderr
    again = bgsweep(*resumed, "data.images=moved", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert read_records(sweep)["t01"].status == "completed" and read_records(sweep)["t01"].failures == 0
    assert json.loads((sweep / "sweep.json").read_text())["file"]["experiment"]["data"]["images"] == "moved"


def _is_end(event: Event, trial: str) -> bool:
    return isinstance(event, Ended) and event.trial.id == trial


def _rewrite(folder: Path, events: list[Event]) -> None:
    """A journal of these events, as an older version wrote it."""
    for path in [*(folder / "journal").iterdir(), *folder.glob("records-*.json")]:
        path.unlink()
    lines = [json.dumps(event.public()) for event in events]
    (folder / "journal.jsonl").write_text("".join(line + "\n" for line in lines))
