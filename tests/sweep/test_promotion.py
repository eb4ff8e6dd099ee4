"""Promotion: the winner becomes champion only if it is better by more than the choice of test images explains."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bgsweep.config import load
from bgsweep.evaluation import Report
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.sweep.promotion import compare, decide, decide_again
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.models import log_encoder
from bgsweep.tracking.registry import add_version, give_alias
from bgsweep.training.checkpoint import untrained
from bgsweep.training.final_evaluation import evaluate_final

TINY = Path(__file__).parents[1] / "tiny.yaml"


def report(hits: list[int] | np.ndarray[tuple[int], np.dtype[np.int64]], of: float = 1) -> Report:
    values = np.asarray(hits, np.float64)
    measured = PerImageMetric("knn_top1", values, np.full(len(values), of))
    return Report(measured.value, 0.0, None, None, {}, measured)


def test_only_a_difference_beyond_the_noise_counts() -> None:
    theirs = report([1, 0] * 50)
    better, reason = compare(report([1, 1] * 40 + [1, 0] * 10), theirs, 0)
    assert better and reason.startswith("better by more than the noise: 90.0 % against 50.0 % of 100 test images")
    better, reason = compare(report([1, 1] + [1, 0] * 49), theirs, 0)
    assert not better and "not better by more than the noise: 51.0 % against 50.0 %" in reason
    assert not compare(report([0, 0] * 50), theirs, 0)[0]
    better, reason = compare(report([1] * 90), theirs, 0)
    assert not better and "90 and 100 images, which cannot be paired" in reason


def test_backgrounds_of_one_image_are_no_more_images() -> None:
    """Of 20 images 5 are better: sure if each of their 4 backgrounds counted as one, not so by images."""
    ours, theirs = np.zeros(20, np.int64), np.zeros(20, np.int64)
    ours[:5], theirs[5:7] = 4, 4
    assert not compare(report(ours, of=4), report(theirs, of=4), 0)[0]
    assert compare(report(ours.repeat(4) // 4), report(theirs.repeat(4) // 4), 0)[0]


def test_the_champion_is_judged_on_the_winners_images_and_keeps_its_place_against_its_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = ["evaluate.variant=mixed_rand", "evaluate.repeats=2", "evaluate.linear.epochs=2", "register.name=tiny"]
    winner, older = load(TINY, settings), load(TINY, [*settings, "data.resize=32", "training.epochs=9"])
    start = untrained(winner.experiment)
    ours = evaluate_final(winner, start)
    assert set(ours.decisive.counted) == {2.0} and ours.decisive.value == ours.knn_top1
    assert "decisive" not in ours.public()
    with Tracker(tracking_uri(tmp_path)) as tracker:
        first = decide(tracker, winner, "a run", ours)
        assert (first.alias, first.reason, first.version) == ("champion", "no version of tiny was champion", None)
        run = tracker.pretrain_run("one", older)
        model = log_encoder(tracker, run, start.encoder, 16, older.experiment.model_dump(mode="json"))
        add_version(tracker, run, model, "tiny", first.tags())
        give_alias(tracker, "tiny", 1, "champion")

        equal = decide(tracker, winner, "another run", ours)
        assert equal.alias == "challenger" and equal.report is not None
        assert equal.report.public() == ours.public()
        assert "kNN against version 1, the champion: no difference: both get the same" in equal.reason
        perfect = dataclasses.replace(ours.decisive, hits=ours.decisive.counted)
        assert decide(tracker, winner, "another run", dataclasses.replace(ours, decisive=perfect)).alias == "champion"
        assert decide(tracker, winner, run, ours).reason == first.reason

        # Two sweeps looked at the same champion: the one that comes second is compared with the first one's winner.
        assert decide_again(tracker, winner, "another run", ours, equal) is equal
        late = decide_again(tracker, winner, "another run", ours, first)
        assert (late.alias, late.version) == ("challenger", 1)

        other = load(TINY, [*settings, "register.name=strange"])
        strange = tracker.client.create_logged_model(tracker.experiment_id, "encoder", source_run_id=run).model_id
        tracker.log_text(run, "no encoder", "strange/readme")
        tracker.flush()
        add_version(tracker, run, strange, "strange", {})
        give_alias(tracker, "strange", 1, "champion")
        unread = decide(tracker, other, "another run", ours)
        assert unread.alias == "challenger" and "version 1, the champion, cannot be evaluated here: " in unread.reason
