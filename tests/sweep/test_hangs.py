"""Signs of life of trials, and the end of those that give none."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.core.generated import autoscaler_pb2
from ray.tune.experiment import Trial

from bgsweep.config import load
from bgsweep.distributed import pulse
from bgsweep.distributed.pulse import Pulse, in_words
from bgsweep.distributed.trial_board import Beat, BoardReader, TrialBoard
from bgsweep.stopping import Request
from bgsweep.sweep import early_checkpoints, guards
from bgsweep.sweep.early_checkpoints import EarlyCheckpoints
from bgsweep.sweep.guards import HangGuard
from bgsweep.sweep.searcher import NUMBER

TINY = Path(__file__).parents[1] / "tiny.yaml"
BOARD = ("test board", "test")


class Clock:
    """The guards' time, in seconds, and the actors that they have killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.killed = 1000.0, []
        monkeypatch.setattr(guards, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(guards.ray, "kill", self.killed.append)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def trial(number: int = 0) -> Any:
    state = SimpleNamespace(ray_actor=f"actor {number}")
    return SimpleNamespace(status=Trial.RUNNING, config={NUMBER: number}, temporary_state=state)


def watch(guard: HangGuard, clock: Clock, seconds: float, beats: dict[str, Beat] | None = None) -> None:
    """Let time go by, with a look every ten seconds."""
    until = clock.now + seconds
    while clock.now < until and not clock.killed:
        clock.now += 10
        guard.look([trial()], beats or {})


def step(count: int, longest: float | None = 12.0) -> dict[str, Beat]:
    return {"t00": Beat(count, f"epoch 3, step {count}", longest, "node")}


@pytest.mark.parametrize(
    ("longest", "least", "most", "told"),
    [
        (12.0, 890, 910, "no progress for 15 minutes after epoch 3, step 1 (the longest pause before: 12 s); if a"),
        (300.0, 2990, 3010, "no progress for 50 minutes after epoch 3, step 1 (the longest pause before: 300 s); if"),
        (None, 7190, 7210, "no progress for 120 minutes after epoch 3, step 1; if a single step can take"),
    ],
)
def test_the_limit_follows_from_the_longest_pause_so_far(
    longest: float | None, least: float, most: float, told: str, clock: Clock
) -> None:
    guard = HangGuard("auto")
    guard.started("t00")
    began = clock.now
    watch(guard, clock, 10_000, step(1, longest))
    assert least <= clock.now - began - 10 <= most and clock.killed == ["actor 0"]
    assert told in (guard.reason("t00") or "")


def test_an_explicit_limit_wins_and_is_measured_from_the_last_progress(clock: Clock) -> None:
    guard = HangGuard(2)
    guard.started("t00")
    for count in range(1, 100):  # in all far longer than the limit, and without a report
        watch(guard, clock, 110, step(count))
    assert not clock.killed
    watch(guard, clock, 130, step(99))
    assert clock.killed and "no progress for 2 minutes after epoch 3, step 99;" in (guard.reason("t00") or "")


def test_what_the_driver_does_not_hear_is_not_counted(clock: Clock) -> None:
    guard = HangGuard(2)
    guard.started("t00")
    watch(guard, clock, 50, step(1))
    clock.now += 7200  # it was suspended, or waited for MLflow
    watch(guard, clock, 60, step(1))
    assert not clock.killed
    watch(guard, clock, 100, step(1))
    assert clock.killed


def test_a_restarted_trial_has_the_time_of_a_first_start_again(clock: Clock) -> None:
    guard = HangGuard("auto")
    guard.started("t00")
    watch(guard, clock, 2000, step(1))
    assert clock.killed == ["actor 0"] and guard.reason("t00")
    clock.killed.clear()
    guard.started("t00")
    watch(guard, clock, 7000, step(1))  # the board's last beat is that of the process that was killed
    assert not clock.killed


@pytest.fixture
def board() -> Iterator[Any]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    actor: Any = ray.remote(num_cpus=0)(TrialBoard)
    made = actor.options(name=BOARD[0], namespace=BOARD[1]).remote()
    ray.get(made.__ray_ready__.remote())
    yield made
    ray.shutdown()


@pytest.mark.faults
def test_a_trial_that_stops_in_mid_epoch_is_ended_and_a_slow_one_is_not(
    board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes that train: both are longer without an evaluation than the limit, one of them stops."""

    class Training:
        """A run whose only epoch lasts for as long as it is watched."""

        def train(self, number: int) -> None:
            from bgsweep.training.run import Run

            run = Run(load(TINY, ["training.batch_size=8", "data.resize=16"]))
            run.training.stop.asked = Pulse(BOARD, f"t0{number}", lambda: in_words(run.position))
            while True:
                run.training.step_epoch()

        def pid(self) -> int:
            return os.getpid()

    reader, guard = BoardReader(board), HangGuard(6 / 60)
    actors = [ray.remote(Training).options(num_cpus=1, max_concurrency=2).remote() for _ in range(2)]
    trials = [trial(number) for number in range(2)]
    for one, actor in zip(trials, actors, strict=True):
        one.temporary_state.ray_actor = actor
    victim = ray.get(actors[0].pid.remote())
    running = [actor.train.remote(number) for number, actor in enumerate(actors)]
    beats: dict[str, Beat] = {}

    def look() -> None:
        nonlocal beats
        time.sleep(0.2)
        beats = reader.look({}) or beats

    while len(beats) < 2:
        look()
    for name in ("t00", "t01"):
        guard.started(name)
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    while time.monotonic() - began < 20:
        look()
        guard.look(trials, beats)
    assert "hangs: no progress for 0.1 minutes after epoch " in (guard.reason("t00") or "")
    assert guard.reason("t01") is None
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(running[0])
    assert not ray.wait([running[1]], timeout=0)[0], "the trial that went on was ended"


def test_a_step_costs_a_microsecond_and_every_two_seconds_a_message(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    sent: list[tuple[Any, ...]] = []
    board = SimpleNamespace(beat=SimpleNamespace(remote=lambda *words: sent.append(words) or len(sent)))
    monkeypatch.setattr(pulse.ray, "get_actor", lambda *_: board)
    monkeypatch.setattr(pulse.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node"))
    monkeypatch.setattr(pulse.ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(pulse.ray, "get", lambda ref: 1 if ref == 2 else 0)
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: clock.now))
    beat = Pulse(BOARD, "t00", lambda: "epoch 1, step 1")
    answers = []
    for _ in range(60):
        clock.now += 0.1
        answers.append(beat())
    assert [words[:3] for words in sent] == [("t00", "epoch 1, step 1", pytest.approx(0.1))] * len(sent)
    assert len(sent) in (2, 3)
    assert answers[-1] is Request.CHECKPOINT  # as the second answer says
    beat.done()
    assert beat() is Request.NOTHING
    monkeypatch.undo()
    beat = object.__new__(Pulse)
    beat._longest, beat._answer, beat._asked, beat._done = 1e9, None, 0, 0
    beat._moved = beat._sent = time.monotonic()
    began = time.perf_counter()
    for _ in range(1000):
        beat()
    assert (time.perf_counter() - began) / 1000 < 1e-4  # a microsecond on a machine that does nothing else


@pytest.mark.slow
def test_trials_on_a_node_that_will_be_taken_away_are_asked_once_for_a_checkpoint(board: Any) -> None:
    here = ray.get_runtime_context().get_node_id()
    trials, beats = [trial(0), trial(1)], {"t00": Beat(1, "", 1.0, here), "t01": Beat(1, "", 1.0, "another node")}
    early, ray_train = EarlyCheckpoints(drains=True), EarlyCheckpoints(drains=False)
    early.look(trials, beats)
    assert not early.requests
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gcs = ray._private.worker.global_worker.gcs_client
    assert gcs.drain_node(here, reason, "spot", int(1000 * (time.time() + 600)))[0]
    for _ in range(2):
        early.look(trials, beats)
        ray_train.look(trials, beats)  # whose workers look for it themselves
    assert early.requests == {"t00": 1} and not ray_train.requests and not early.leave


def test_a_driver_leaves_once_all_trials_that_train_have_written_or_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(early_checkpoints, "time", SimpleNamespace(monotonic=lambda: clock.now))
    beats = {**step(1), "t01": Beat(1, "its start", None, "node")}  # the second has nothing to keep yet
    for written in (True, False):
        early = EarlyCheckpoints(drains=False)
        early.look([trial(0), trial(1)], beats)
        assert not early.leave and not early.requests
        early.asked = lambda: Request.LEAVE
        early.look([trial(0), trial(1)], beats)
        assert early.requests == {"t00": 1} and not early.leave
        if written:
            early.written("t00")
        else:
            clock.now += 26
        assert early.leave
