import json
from typing import Any

import pytest

from bgsweep.config import Background, Experiment, resolve
from bgsweep.config.schedule import at_epoch, at_step, highest
from bgsweep.errors import UserError
from bgsweep.sweep.searcher import fixed_points


def course(name: str, epochs: int = 5, first: Any = 0.4, last: Any = 0.0) -> list[Any]:
    schedule = Background.model_validate({"random": {"from": first, "to": last, "course": name}}).random
    return [at_epoch(schedule, epoch, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4, 0.4]),
        ("linear", [0.4, 0.3, 0.2, 0.1, 0.0]),
        ("cosine", [0.4, 0.341421, 0.2, 0.058579, 0.0]),
        ("reversed_linear", [0.0, 0.1, 0.2, 0.3, 0.4]),
        ("reversed_cosine", [0.0, 0.058579, 0.2, 0.341421, 0.4]),
    ],
)
def test_courses(name: str, expected: list[float]) -> None:
    assert course(name) == pytest.approx(expected, abs=1e-6)


def test_a_schedule_of_one_epoch_is_at_its_start_and_one_that_is_over_at_its_end() -> None:
    assert course("linear", epochs=1) == [0.4]
    schedule = Background.model_validate({"swap": {"from": 0.0, "to": 0.3}}).swap
    assert at_epoch(schedule, 9, 4) == 0.3 and highest(schedule) == 0.3


def test_ends_may_be_pairs_of_views() -> None:
    assert course("linear", epochs=3, first=(0.2, 0.8)) == [(0.2, 0.8), (0.1, 0.4), (0.0, 0.0)]


def resolved(space: dict[str, Any], *overrides: str) -> Any:
    return resolve({"space": space, "experiment": {"training": {"epochs": 10}}}, overrides)


def test_each_part_of_a_schedule_can_be_searched_beside_a_plain_value() -> None:
    space = {
        "background.random.from": {"uniform": [0.0, 0.5]},
        "background.random.to": {"uniform": [0.0, 0.5]},
        "background.random.course": {"choice": ["linear", "cosine", "reversed_linear"]},
        "points": [{"background.random.from": 0.3, "background.random.course": "cosine"}],
    }
    file = resolved(space, "background.random=0.2")
    (baseline, off), (_, point) = fixed_points(file)
    assert baseline == "baseline" and not file.experiment.with_values(off).background.active
    random = file.experiment.with_values(point).background.random
    assert random.model_dump() == {"from": 0.3, "to": 0.2, "course": "cosine"}
    # As a whole or in parts, in Python or as JSON: the same run.
    again = Experiment.model_validate(file.experiment.with_values(point).model_dump(mode="json"))
    assert again.digest == file.experiment.with_values(point).digest != file.experiment.digest
    whole = file.experiment.with_values({"background.random": {"from": 0.3, "to": 0.2, "course": "cosine"}})
    assert whole.digest == again.digest and again.value("background.random.from") == 0.3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("background.random={from: 1.4, to: 0}", "background.random.from: Input should be less than or equal to 1"),
        ("background.random={from: 0.4}", "background.random.to: missing; give it a value"),
        ("background.random={from: 0.4, to: 0, course: cubic}", "background.random.course: Input should be 'constant'"),
        ("background.random={from: 0.4, to: 0, cuorse: cosine}", "unknown key; did you mean `course`?"),
        ("background.random=1.4", "background.random: Input should be less than or equal to 1"),
        ("background.swap=[0.1, 0.2]", "one probability, not a list"),
        ("background.foreground_scale=0.5", "background.foreground_scale: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_one_line(override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        resolved({}, override)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_is_searched_as_a_whole_or_in_parts() -> None:
    both = {"background.random": {"uniform": [0, 0.5]}, "background.random.to": {"uniform": [0, 0.5]}}
    with pytest.raises(UserError, match=r"space.background.random.to: background.random is searched as a whole"):
        resolved(both)
    with pytest.raises(UserError, match=r"space.background.random.end: .*unknown key"):
        resolved({"background.random.end": {"uniform": [0, 0.5]}})
    assert resolved({"background.random": {"uniform": [0, 0.5]}}).space.parameters


def test_a_value_is_inside_its_distribution_in_the_form_of_the_file_the_experiment_or_a_journal() -> None:
    falling = {"from": [0.4, 0.2], "to": 0}
    space = {
        "background.random": {"choice": [0.2, falling, [0.1, 0.3]]},
        "views.scale": {"choice": [[0.2, 1.0]]},
        "optimizer.lr": {"uniform": [0.1, 0.2], "when": {"background.random": [falling, [0.1, 0.3]]}},
    }
    file = resolved(space, "optimizer.lr=0.1")
    random, scale = file.space.parameters["background.random"][0], file.space.parameters["views.scale"][0]
    assert scale.contains((0.2, 1.0)) and scale.contains([0.2, 1.0]) and not scale.contains((0.2, 0.9))
    for option in random.options:
        value = file.experiment.with_values({"background.random": option}).value("background.random")
        for form in (value, json.loads(json.dumps(value))):
            assert random.contains(form) and random.as_listed(form) == option
            searched = {key for key, _, _ in file.space.walk({"background.random": form})}
            assert ("optimizer.lr" in searched) == (option != 0.2)
    assert not random.contains({**falling, "course": "cosine"}) and not random.contains((0.3, 0.1))


def test_a_scheduled_swap_needs_a_method_with_negatives() -> None:
    with pytest.raises(UserError, match=r"BG_Swaps adds negatives, and byol has none"):
        resolved({}, "method.name=byol", "background.swap={from: 0, to: 0.2}")


def test_weight_decay_can_be_scheduled_and_searched_in_parts() -> None:
    decay = "optimizer.weight_decay={from: 0.04, to: 0.4, course: cosine}"
    file = resolved({"optimizer.weight_decay.to": {"loguniform": [0.1, 2.0]}}, decay)
    assert [at_step(file.experiment.optimizer.weight_decay, step, 3) for step in range(3)] == pytest.approx(
        [0.04, 0.22, 0.4]
    )
    changed = file.experiment.with_values({"optimizer.weight_decay.to": 1.5})
    assert changed.optimizer.model_dump()["weight_decay"] == {"from": 0.04, "to": 1.5, "course": "cosine"}
    plain = resolved({}).experiment
    assert plain.with_values({"optimizer.weight_decay.to": 1.5}).value("optimizer.weight_decay.from") == 1e-4
    assert at_step(plain.optimizer.weight_decay, 2, 3) == 1e-4
    with pytest.raises(UserError, match=r"optimizer.weight_decay.from: Input should be greater than or equal to 0"):
        resolved({}, "optimizer.weight_decay={from: -1, to: 0.4}")
    with pytest.raises(UserError, match=r"optimizer.weight_decay: a number is needed"):
        resolved({}, "optimizer.weight_decay=[0.1, 0.2]")
