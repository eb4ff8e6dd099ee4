"""Which images of a batch share which background, read from images whose two colours say whose they are."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.batch import Batch
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.loader import Batches
from bgsweep.data.sample import Sample

VIEWS = Views(size=32, scale=(0.4, 1), jitter=(0, 0, 0, 0), gray=0, blur=0)
GROUND, FIGURE = 10, 200


class Coloured:
    """The embedded images with background (number, 10, 0) and foreground (number, 200, 0): no two alike."""

    def __init__(self) -> None:
        self.sample = EmbeddedSample("validation", 64)
        self.name, self.ids, self.labels = self.sample.name, self.sample.ids[:96], self.sample.labels[:96]
        self.classes, self.has_masks = self.sample.classes, True

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        found = self.sample[index]
        assert found.mask is not None
        image = np.zeros_like(found.image)
        image[..., 0] = index
        image[..., 1] = np.where(found.mask > 127, FIGURE, GROUND)
        return replace(found, image=image)

    def digests(self) -> dict[str, str]:
        return {}


def owner(picture: torch.Tensor, part: int) -> int | None:
    """The image that most background (or foreground) pixels of a view come from."""
    numbers = picture[..., 0][picture[..., 1] == part].tolist()
    return Counter(numbers).most_common(1)[0][0] if len(numbers) > 8 else None


def batch_of(workers: int = 0, **background: Any) -> Batch:
    batches = Batches(Coloured(), ViewPipeline(VIEWS, Background(**background)), 96, seed=3, workers=workers)
    return next(batches.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("random", [0.0, 1.0])
@pytest.mark.parametrize("negative", ["silhouette", "foreground"])
def test_key_stands_on_another_background_and_negative_on_the_query_s(
    negative: str, random: float, workers: int
) -> None:
    batch = batch_of(workers, swap=1.0, random=random, swap_negative=negative, donor="tiled")
    assert batch.swaps is not None and batch.swapped is not None
    assert batch.counts["swaps"] + batch.counts["swaps_kept"] == 96 and batch.counts["swaps"] > 60
    shown = Counter[str]()
    keys_donors = Counter[int]()
    for place, swap in zip(batch.swapped.tolist(), batch.swaps, strict=True):
        own = int(batch.indices[place])
        query, key = batch.views[0][place], batch.views[1][place]
        behind_query, behind_key = owner(query, GROUND), owner(key, GROUND)
        behind_swap = Counter(swap[..., 0][swap[..., 1] == GROUND].tolist())
        assert owner(query, FIGURE) in (own, None) and owner(key, FIGURE) in (own, None)
        if behind_key is not None:  # blended away where hardly any background is in the crop
            assert behind_key not in (own, behind_query)
            keys_donors[behind_key] += 1
        if behind_query is not None:
            assert (behind_query == own) is (random == 0.0)
            # A silhouette may show the other image's background too, within the query's foreground.
            assert behind_swap[behind_query] > 0
            # The crop of another foreground, brought to size, keeps a rim of its own background.
            assert negative == "silhouette" or behind_swap[behind_query] > 0.7 * behind_swap.total()
        front = owner(swap, FIGURE)
        assert front not in (own, behind_query)
        shown["query"] += behind_query is not None
        shown["key"] += behind_key is not None
        shown["front"] += front is not None
    assert all(shown[part] > 0.7 * len(batch.swaps) for part in ("query", "key"))
    assert shown["front"] > 0.4 * len(batch.swaps)
    assert len(keys_donors) > 30  # drawn for each key by itself


def test_negative_only_leaves_query_and_key_on_their_own_backgrounds() -> None:
    plain, batch = batch_of(), batch_of(swap=1.0, swap_form="negative_only")
    assert batch.counts == {**plain.counts, "swaps": 96, "swaps_kept": 0}
    assert all(torch.equal(a, b) for a, b in zip(batch.views, plain.views, strict=True))


def test_negative_only_gives_no_query_without_a_foreground_itself_as_its_negative() -> None:
    bounds: dict[str, Any] = {"min_area": 0.25, "max_area": 0.6, "swap": 1.0, "swap_form": "negative_only"}
    batch, plain = batch_of(**bounds), batch_of(min_area=0.25, max_area=0.6)
    assert batch.swapped is not None
    assert 10 < len(batch.swapped) < 86 and batch.counts["swaps_kept"] == 96 - len(batch.swapped)
    assert all(torch.equal(a, b) for a, b in zip(batch.views, plain.views, strict=True))
    share = (batch.views[0][batch.swapped][..., 1] > (GROUND + FIGURE) // 2).float().mean(dim=(1, 2))
    assert share.min() > 0.2 and share.max() < 0.65
    whole = batch_of(**bounds, swap_negative="foreground")  # which is another image's
    assert whole.counts["swaps"] == 96 and whole.counts["swaps_kept"] == 0


def test_an_image_gets_all_of_it_or_nothing() -> None:
    """With one foreground out of bounds, both views are those without BG_Swaps, and there is no negative."""
    bounds = {"min_area": 0.25, "max_area": 0.6}
    plain, batch = batch_of(**bounds), batch_of(swap=1.0, **bounds)
    assert batch.swapped is not None
    swapped = batch.swapped.tolist()
    assert 10 < len(swapped) < 86 and batch.counts["swaps_kept"] == 96 - len(swapped)
    assert torch.equal(batch.views[0], plain.views[0])
    same = [torch.equal(ours, theirs) for ours, theirs in zip(batch.views[1], plain.views[1], strict=True)]
    assert [place for place in range(96) if not same[place]] == swapped
    assert batch.counts["replaced"] == len(swapped)
    share = (batch.views[0][swapped][..., 1] > (GROUND + FIGURE) // 2).float().mean(dim=(1, 2))
    assert share.min() > 0.2 and share.max() < 0.65


def test_an_image_that_is_not_drawn_is_as_without_the_augmentation() -> None:
    others = {"remove": 0.3, "random": 0.3}
    plain, batch = batch_of(**others), batch_of(swap=0.4, **others)
    assert batch.swapped is not None and 20 < len(batch.swapped) < 60
    rest = torch.ones(96, dtype=torch.bool)
    rest[batch.swapped] = False
    assert torch.equal(batch.views[0], plain.views[0])
    assert torch.equal(batch.views[1][rest], plain.views[1][rest])


def test_scheduled_probabilities_are_those_of_the_epoch_whoever_makes_the_batches() -> None:
    background = Background.model_validate(
        {
            "remove": {"from": 0.0, "to": [0.0, 0.6]},
            "random": {"from": 0.6, "to": 0.0},
            "swap": {"from": 1.0, "to": 0.0, "course": "constant"},
        }
    )

    def epochs(numbers: list[int], workers: int = 0) -> list[Batch]:
        batches = Batches(Coloured(), ViewPipeline(VIEWS, background, epochs=4), 96, seed=3, workers=workers)
        return [next(batches.epoch(number)) for number in numbers]

    whole = epochs([0, 1, 2, 3])
    values = zip([0, (0, 0.2), (0, 0.4), (0, 0.6)], [0.6, 0.4, 0.2, 0.0], strict=True)
    for epoch, (remove, random) in enumerate(values):
        batch, fixed = whole[epoch], Background(remove=remove, random=random, swap=1.0)
        plain = next(Batches(Coloured(), ViewPipeline(VIEWS, fixed), 96, seed=3).epoch(epoch))
        assert batch.counts == plain.counts
        assert all(torch.equal(a, b) for a, b in zip(batch.views, plain.views, strict=True))
        assert batch.swaps is not None and torch.equal(batch.swaps, plain.swaps)
    # Another order, as a continued run has; other processes.
    for again in (epochs([3, 0]), epochs([3, 0], workers=2)):
        for batch, expected in zip(again, (whole[3], whole[0]), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch.views, expected.views, strict=True))
