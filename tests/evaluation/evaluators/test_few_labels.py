"""Which images keep their labels, and what a probe makes of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from bgsweep.config import Evaluate, FewLabels, Linear, SuiteConfig
from bgsweep.data import Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluators.few_labels import drawn, listed
from bgsweep.evaluation.registry import run_evaluators
from tests.evaluation.subjects import subject

SETTINGS = Evaluate(linear=Linear(epochs=20))


class Named:
    """A source of nothing but names."""

    name = "ImageNet"

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_every_class_keeps_the_same_share(splits: Splits, share: float) -> None:
    chosen = drawn(splits.train, share, 0)
    counts = np.bincount(splits.train.labels[chosen], minlength=10)
    assert counts.tolist() == [max(1, round(share * 96))] * 10
    assert len(set(chosen.tolist())) == len(chosen)


def test_larger_shares_hold_the_smaller_and_the_seed_decides(splits: Splits) -> None:
    small, large = drawn(splits.train, 0.01, 0), drawn(splits.train, 0.1, 0)
    assert set(small.tolist()) < set(large.tolist())
    assert drawn(splits.train, 0.1, 0).tolist() == large.tolist() != drawn(splits.train, 0.1, 1).tolist()


@pytest.mark.parametrize(("file", "count"), [("imagenet_1percent.txt", 12_811), ("imagenet_10percent.txt", 128_116)])
def test_simclrs_lists_are_found_by_file_name(shared_data: Path, file: str, count: int) -> None:
    path = shared_data / "eval_labels" / file
    names = path.read_text(encoding="utf-8").split()
    source = Named(sorted(f"{name.partition('_')[0]}/{name}" for name in [*names, "n01440764_0.JPEG"]))
    found = listed(source, path)  # type: ignore[arg-type]
    assert len(found) == len(names) == count
    assert {source.ids[index].rpartition("/")[2] for index in found} == set(names)
    with pytest.raises(UserError, match=r"1 of its .* files are not in ImageNet, the first is"):
        listed(Named([name for name in source.ids if not name.endswith(names[-1])]), path)  # type: ignore[arg-type]


def test_images_are_encoded_once_for_all_evaluators_of_a_call(splits: Splits) -> None:
    seen = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        return who.encode(images)

    who = subject()
    context = EvalContext(replace(who, encode=counting), SuiteConfig(size=32, evaluate=SETTINGS), splits)
    results = run_evaluators(context, ["knn", "knn_dino", "linear", "few_1", "few_10", "backgrounds"])
    # Train, the test images as they are, and seven other variants of them.
    assert seen == len(splits.train) + len(splits.test) + 7 * context.features.variants().count("only_fg")
    (alone,) = run_evaluators(EvalContext(who, SuiteConfig(size=32, evaluate=SETTINGS), splits), ["few_10"])
    assert alone.values[0].hits.tolist() == results[4].values[0].hits.tolist()


def test_more_labels_help_and_the_protocol_says_how_many(splits: Splits, tmp_path: Path) -> None:
    context = EvalContext(subject(), SuiteConfig(size=32, evaluate=SETTINGS), splits)
    one, ten, full = run_evaluators(context, ["few_1", "few_10", "linear"])
    assert one.values[0].name == "few_1_top1" and ten.values[0].name == "few_10_top1"
    assert 0.1 <= one.values[0].value < full.values[0].value
    assert "10 of 960 images, drawn by class, seed 0" in one.protocol["train"]
    chosen = drawn(splits.train, 0.1, 0)
    (tmp_path / "ten.txt").write_text("\n".join(splits.train.ids[index].rpartition("/")[2] for index in chosen))
    file = SuiteConfig(size=32, evaluate=SETTINGS, few_labels=FewLabels(ten_percent=str(tmp_path / "ten.txt")))
    (again,) = run_evaluators(EvalContext(subject(), file, splits), ["few_10"])
    assert again.values[0].hits.tolist() == ten.values[0].hits.tolist()
    assert "listed in" in again.protocol["train"]
    (tmp_path / "ten.txt").write_text("")
    with pytest.raises(UserError, match=r"ten\.txt: empty"):
        run_evaluators(EvalContext(subject(), file, splits), ["few_10"])
