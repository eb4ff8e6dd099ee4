"""One pool of Ray actors for masks, views and evaluations: order, errors, and processes that die."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgsweep.distributed.actor_pool import ActorPool, ActorsDied, returns_user_errors
from bgsweep.distributed.session import ray_session
from bgsweep.errors import UserError


class Worker:
    """Squares numbers; refuses negative ones; dies before each 13 until the file `lives` has no line left."""

    def __init__(self, lives: str) -> None:
        self.lives = Path(lives)

    @returns_user_errors
    def run(self, number: int) -> tuple[int, int]:
        if number < 0:
            raise UserError(f"{number}: is negative")
        if number == 13 and (deaths := self.lives.read_text().splitlines()):
            self.lives.write_text("\n".join(deaths[1:]))
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2, os.getpid()


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with ray_session(2):
        yield


def pool(folder: Path, deaths: int) -> ActorPool:
    lives = folder / "lives"
    lives.write_text("\n".join("x" * deaths))
    return ActorPool(Worker, (str(lives),), 2, {"num_cpus": 1}, task="squares", advice="give it smaller numbers")


def test_results_come_in_order_from_all_actors_though_one_dies(tmp_path: Path) -> None:
    results = list(pool(tmp_path, 1).map((number,) for number in range(20)))
    assert [square for square, _ in results] == [number**2 for number in range(20)]
    assert len({process for _, process in results}) == 3, "two actors, one of them started again"


def test_unordered_results_are_all_there(tmp_path: Path) -> None:
    results = pool(tmp_path, 0).map_unordered((number,) for number in range(20))
    assert sorted(square for square, _ in results) == [number**2 for number in range(20)]


def test_tasks_are_taken_as_they_are_needed(tmp_path: Path) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(20):
            taken.append(number)
            yield (number,)

    next(pool(tmp_path, 0).map_unordered(tasks()))
    assert len(taken) == 5, "one runs and one waits at each of two actors, and one took the finished one's place"


def test_a_users_error_arrives_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^-1: is negative$") as error:
        list(pool(tmp_path, 0).map([(1,), (-1,), (2,)]))
    assert not isinstance(error.value, ActorsDied)


def test_an_actor_that_keeps_dying_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ActorsDied, match=r"^a process that squares died again and again, .*; give it smaller numbers$"):
        list(pool(tmp_path, 9).map([(1,), (13,)]))
