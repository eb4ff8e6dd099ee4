"""Worst groups, and kinds of backgrounds."""

import numpy as np
import pytest

from bgsweep.data import Image, Splits
from bgsweep.evaluation.audit import groups
from bgsweep.evaluation.audit.measure import NotApplicable
from bgsweep.evaluation.audit.subject import Subject
from tests.evaluation.audit.conftest import ENCODERS, Constructed, Sees, subject


def test_the_worst_group_is_the_lowest_of_those_with_enough_images() -> None:
    hits = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 0.0])
    which = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    worst, value = groups.worst_group(hits, which)
    assert worst == 1 and value.value == pytest.approx(2 / 5)
    with pytest.raises(NotApplicable):
        groups.worst_group(hits, which, least=6)


def test_backgrounds_of_one_colour_are_one_kind() -> None:
    draws = np.random.default_rng(0)
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
    of = np.array([0] * 12 + [1] * 8 + [2] * 4)
    noisy = [np.clip(colours[each] + draws.integers(-9, 9, (24, 24, 3)), 0, 255).astype(np.uint8) for each in of]
    found = groups.clustered(np.stack([groups.described(image) for image in noisy]), 3, 0)
    assert found.tolist() == of.tolist()  # ordered by size


def test_small_classes_have_fewer_kinds_of_backgrounds() -> None:
    found = [groups.number_of_kinds(np.repeat(np.arange(3), each)) for each in (4, 15, 200)]
    assert found == [2, 3, 4]


def test_every_class_is_in_the_table(subjects: dict[str, Subject]) -> None:
    found = groups.groups(subjects["centre"])
    assert [one.value for one in found.values] == [1, 1] and not found.details["failing"]
    table = found.details["table"]
    assert [row["class"] for row in table] == [f"class {number}" for number in range(4)]
    assert sum(cell["images"] for row in table for cell in row["cells"]) == len(subjects["centre"].usable)


class Conflicting(Constructed):
    """Every second image of class 0 stands before the background of class 1."""

    drawn = 0

    def _image(self, label: int, draws: np.random.Generator) -> Image:
        self.drawn += 1
        image, other = super()._image(label, draws), super()._image(1, draws)
        if label == 0 and self.drawn % 2:
            other[14:34, 14:34] = image[14:34, 14:34]
            return other
        return image


@pytest.mark.parametrize(("encoder", "worst"), [("background", 0), ("texture", 0), ("centre", 1), ("foreground", 1)])
def test_the_worst_group_is_that_before_anothers_background(encoder: str, worst: float) -> None:
    test = Conflicting("test", 20, 1)
    found = groups.groups(subject(Sees(ENCODERS[encoder]), Splits(Constructed("train", 6, 0), test, test)))
    values = {one.name: one.value for one in found.values}
    assert values == {"worst_group": worst, "all": 1 if worst else 70 / 80}
    if not worst:
        assert found.details["worst"]["class"] == "class 0" and found.details["failing"]
