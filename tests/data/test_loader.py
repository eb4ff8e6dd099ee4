import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from bgsweep.augment.color_batched import render
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.batch import Batch
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.loader import Batches, default_loader_workers
from bgsweep.data.order import DONOR_BLOCK, KeyedOrder, donor_position, epoch_order, order_window, swap_position
from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.data.shared_buffers import parts_within, slots_of
from bgsweep.errors import UserError
from tests.inputs import write_images
from tests.progress import wait_for

VIEWS = Views(size=24, small_crops=1, small_size=16)
BATCH = 48


@pytest.fixture(scope="module")
def pipeline() -> ViewPipeline:
    return ViewPipeline(VIEWS, Background(remove=0.3, random=0.5))


@pytest.fixture(scope="module")
def sample() -> EmbeddedSample:
    return EmbeddedSample("validation", 32)


def batches(source: ImageDataset, pipeline: ViewPipeline, batch_size: int = BATCH, **options: Any) -> Batches:
    return Batches(source, pipeline, batch_size, seed=5, **options)


def assert_equal(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.indices, their.indices)
        assert torch.equal(our.labels, their.labels)
        assert our.counts == their.counts
        assert all(torch.equal(a, b) for a, b in zip(our.views, their.views, strict=True))
        drawn = zip(our.photometry or [], their.photometry or [], strict=True)
        assert all(torch.equal(a, b) for a, b in drawn)


def test_batch_holds_what_it_says(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    epoch = list(batches(sample, pipeline).epoch(0))
    assert len(epoch) == len(sample) // BATCH
    for batch in epoch:
        assert [tuple(view.shape) for view in batch.views] == [(BATCH, 24, 24, 3)] * 2 + [(BATCH, 16, 16, 3)]
        assert all(view.dtype == torch.uint8 for view in batch.views)
        assert batch.labels.tolist() == sample.labels[batch.indices.numpy()].tolist()
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.counts["views"] == 3 * BATCH
        assert 0 < batch.counts["removed"] < 2 * BATCH
        assert 0 < batch.counts["replaced"] < 2 * BATCH
        assert batch.counts["unreadable"] == 0
    seen = torch.cat([batch.indices for batch in epoch]).tolist()
    assert len(set(seen)) == len(seen)


def test_epochs_and_seeds_differ(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    reader = batches(sample, pipeline)
    first, second = next(reader.epoch(0)), next(reader.epoch(1))
    other = next(Batches(sample, pipeline, BATCH, seed=6).epoch(0))
    assert not torch.equal(first.indices, second.indices)
    assert not torch.equal(first.indices, other.indices)
    assert not torch.equal(first.views[0], first.views[1])
    assert_equal([first], [next(batches(sample, pipeline).epoch(0))])


def test_loader_processes_change_nothing(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    here = batches(sample, pipeline)
    expected = [list(here.epoch(epoch)) for epoch in (0, 1)]
    for workers in (1, 2):
        elsewhere = batches(sample, pipeline, workers=workers)
        state = torch.get_rng_state()
        next(elsewhere.epoch(1))  # an epoch put down early leaves nothing behind
        for epoch in (0, 1):
            assert_equal(list(elsewhere.epoch(epoch)), expected[epoch])
        assert torch.equal(torch.get_rng_state(), state)


def test_draws_for_the_device_come_with_their_views(sample: EmbeddedSample) -> None:
    background = Background(**SWAPS, swap=0.5)
    drawing = ViewPipeline(VIEWS.model_copy(update={"photometric": "device"}), background)
    plain = ViewPipeline(VIEWS, background)
    here = list(batches(sample, drawing).epoch(1))
    assert_equal(here, list(batches(sample, drawing, workers=2).epoch(1)))
    for batch, expected in zip(here, batches(sample, plain).epoch(1), strict=True):
        assert batch.photometry is not None and expected.photometry is None
        assert batch.swaps is not None and expected.swaps is not None
        made = zip([*batch.views, batch.swaps], batch.photometry, [*expected.views, expected.swaps], strict=True)
        for views, rows, finished in made:
            assert len(rows) == len(views)
            assert (render(views, rows, "exact").float() - finished.float()).abs().mean() < 0.5


def test_two_ranks_halve_the_batch_of_one(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    whole = list(batches(sample, pipeline).epoch(2))
    halves = [list(batches(sample, pipeline, rank=rank, world_size=2).epoch(2)) for rank in (0, 1)]
    for one, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(one.indices, torch.cat([left.indices, right.indices]))
        for view, *parts in zip(one.views, left.views, right.views, strict=True):
            assert torch.equal(view, torch.cat(parts))
        for name, count in one.counts.items():
            assert count == left.counts.get(name, 0) + right.counts.get(name, 0)


def test_epoch_taken_up_in_its_middle_goes_on_as_if_never_left(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    assert_equal(list(batches(sample, pipeline).epoch(3, 2)), list(batches(sample, pipeline).epoch(3))[2:])


class Recording(EmbeddedSample):
    """The sample, which notes in a file each image that is read, in whatever process."""

    def __init__(self, notes: Path) -> None:
        super().__init__("train", 32)
        self.notes = notes

    def __getitem__(self, index: int) -> Sample:
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(f"{index}\n")
        return super().__getitem__(index)

    @property
    def read(self) -> int:
        return len(self.notes.read_text(encoding="utf-8").splitlines())


def test_the_next_epoch_begins_while_one_is_evaluated_and_none_after_the_last(tmp_path: Path) -> None:
    """A large step on a GPU takes less time than making its first batch, which an epoch of few steps must not await."""
    source = Recording(tmp_path / "read")
    reader = batches(source, ViewPipeline(VIEWS, Background()), batch_size=320, workers=1, epochs=2)
    images = reader.steps_per_epoch * 320
    list(reader.epoch(0))
    wait_for(lambda: source.read > images, lambda: source.read, "no image of the next epoch was read")
    list(reader.epoch(1))
    time.sleep(0.5)
    assert source.read == 2 * images
    assert_equal(list(reader.epoch(1, 1)), list(batches(source, reader._maker.pipeline, 320).epoch(1, 1)))


def test_views_do_not_depend_on_the_batch_size(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    large = list(batches(sample, pipeline, 96).epoch(0))
    small = list(batches(sample, pipeline, 32).epoch(0))
    for view in range(3):
        joined = torch.cat([batch.views[view] for batch in small])
        assert torch.equal(torch.cat([batch.views[view] for batch in large]), joined[: 2 * 96])


def test_orders_are_permutations_that_differ() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("length", [2, 31, 32, 33, 100])
def test_donors_are_all_others_of_a_block_alike_often(length: int) -> None:
    for position in (0, length // 2, length - 1):
        drawn = [donor_position(key, position, length) for key in range(31 * 30)]
        values, counts = np.unique(drawn, return_counts=True)
        assert position not in values
        assert len(values) == min(DONOR_BLOCK, length) - 1
        assert values.min() >= 0
        assert values.max() < length
        assert values.max() - values.min() < DONOR_BLOCK
        assert counts.max() - counts.min() <= 1


def test_fewer_images_than_a_batch_names_both_numbers(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    with pytest.raises(UserError, match=r"training\.batch_size: one batch of 256 is more than the 200 images"):
        batches(sample, pipeline, 256)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("workers", [0, 1])
def test_next_image_stands_in_for_an_unreadable_one(tree: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    plain = ViewPipeline(VIEWS, Background())
    source = Folder(tree / "images", "train", tree / "masks")
    whole = next(batches(source, plain, 18).epoch(0))
    truncate(tree / "images/train" / source.ids[4])
    with caplog.at_level(logging.WARNING):
        batch = next(batches(source, plain, 18, workers=workers).epoch(0))
    assert batch.counts["unreadable"] == 1
    place = whole.indices.tolist().index(4)
    expected = whole.indices.clone()
    expected[place] = 5
    assert torch.equal(batch.indices, expected)
    assert batch.labels[place] == source.labels[5]
    assert torch.equal(batch.views[0][place], whole.views[0][whole.indices.tolist().index(5)])
    if workers == 0:
        assert source.ids[4] in caplog.text


def test_unreadable_mask_costs_the_run_nothing_but_its_image(tree: Path, pipeline: ViewPipeline) -> None:
    source = Folder(tree / "images", "train", tree / "masks")
    (tree / "masks/train" / source.ids[7]).with_suffix(".png").write_bytes(b"")
    always = ViewPipeline(VIEWS, Background(remove=1.0))
    batch = next(batches(source, always, 18).epoch(0))
    assert batch.counts["unreadable"] == 1
    assert 7 not in batch.indices


@pytest.mark.parametrize("workers", [0, 1])
def test_mask_of_another_size_met_in_training_is_passed_over_like_a_damaged_one(tree: Path, workers: int) -> None:
    source = Folder(tree / "images", "train", tree / "masks")
    mask = (tree / "masks/train" / source.ids[7]).with_suffix(".png")
    PIL.Image.open(mask).resize((30, 40)).save(mask)
    always = ViewPipeline(VIEWS, Background(remove=1.0))
    assert next(batches(source, always, 18, workers=workers).epoch(0)).counts["unreadable"] == 1


def test_training_on_nothing_but_broken_files_ends(tree: Path, pipeline: ViewPipeline) -> None:
    source = Folder(tree / "images", "train")
    for name in source.ids:
        truncate(tree / "images/train" / name)
    with pytest.raises(UserError, match=r"images/train: 20 images in a row cannot be read"):
        next(batches(source, pipeline, 6).epoch(0))


def test_set_without_masks_trains_without_background_augmentation(tree: Path) -> None:
    shutil.rmtree(tree / "masks")
    source = Folder(tree / "images", "train")
    counts = next(batches(source, ViewPipeline(VIEWS, Background()), 18).epoch(0)).counts
    assert counts == {"views": 54, "none": 54, "unreadable": 0}


def test_default_leaves_a_core_to_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_loader_workers() == 11
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_loader_workers() == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    assert default_loader_workers() == 0


SWAPS = {"remove": 0.3, "random": 0.5}


@pytest.mark.parametrize("length", [2, 3, 31, 33, 100])
def test_swaps_are_all_others_but_the_donor_alike_often(length: int) -> None:
    for position, donor in ((0, 1), (length - 1, length - 2)):
        drawn = [swap_position(key, position, donor, length) for key in range(30 * 29)]
        values, counts = np.unique(drawn, return_counts=True)
        assert position not in values
        assert (donor in values) is (length == 2)
        assert len(values) == max(1, min(DONOR_BLOCK, length) - 2)
        assert counts.max() - counts.min() <= 1


def test_swaps_come_for_their_share_and_change_nothing_else(sample: EmbeddedSample, pipeline: ViewPipeline) -> None:
    plain = list(batches(sample, pipeline).epoch(0))
    assert all(batch.swaps is None and batch.swapped is None for batch in plain)
    background = Background(**SWAPS, swap=0.4, swap_form="negative_only")
    swapping = list(batches(sample, ViewPipeline(VIEWS, background)).epoch(0))
    for ours, theirs in zip(plain, swapping, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.views, theirs.views, strict=True))
        assert theirs.swaps is not None and theirs.swapped is not None
        assert theirs.swaps.shape == (len(theirs.swapped), 24, 24, 3)
        assert theirs.swaps.dtype == torch.uint8
        assert theirs.swapped.tolist() == sorted(set(theirs.swapped.tolist()))
        kept = theirs.counts["swaps_kept"]  # queries without a foreground
        assert theirs.counts == {**ours.counts, "swaps": len(theirs.swapped), "swaps_kept": kept}
    share = sum(batch.counts["swaps"] + batch.counts["swaps_kept"] for batch in swapping) / (len(swapping) * BATCH)
    assert share == pytest.approx(0.4, abs=0.1)
    rare = list(batches(sample, ViewPipeline(VIEWS, Background(**SWAPS, swap=1e-9))).epoch(0))
    assert all(batch.swaps is not None and batch.swaps.shape == (0, 24, 24, 3) for batch in rare)


def test_swaps_depend_neither_on_processes_nor_on_ranks(sample: EmbeddedSample) -> None:
    pipeline = ViewPipeline(VIEWS, Background(**SWAPS, swap=0.5))
    whole = list(batches(sample, pipeline).epoch(1))
    elsewhere = list(batches(sample, pipeline, workers=2).epoch(1))
    halves = [list(batches(sample, pipeline, rank=rank, world_size=2).epoch(1)) for rank in (0, 1)]
    assert_equal(elsewhere, whole)
    for one, other, left, right in zip(whole, elsewhere, *halves, strict=True):
        assert torch.equal(one.swaps, other.swaps)
        assert torch.equal(one.swapped, other.swapped)
        assert torch.equal(one.swaps, torch.cat([left.swaps, right.swaps]))
        assert torch.equal(one.swapped, torch.cat([left.swapped, right.swapped + BATCH // 2]))


class Painted:
    """The embedded images with their foregrounds in one colour, and nothing else changed."""

    def __init__(self, sample: EmbeddedSample, value: int) -> None:
        self.sample, self.value = sample, value
        self.name, self.ids, self.labels = sample.name, sample.ids, sample.labels

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: int) -> Sample:
        found = self.sample[index]
        assert found.mask is not None
        image = found.image.copy()
        image[found.mask > 0] = self.value
        return replace(found, image=image)


@pytest.mark.parametrize("negative", ["foreground", "silhouette"])
@pytest.mark.parametrize("background", [{}, {"remove": 1.0}, {"random": 1.0}, {"random": 1.0, "donor": "plain"}])
def test_swap_stands_on_its_query_s_background(
    sample: EmbeddedSample, background: dict[str, Any], negative: str
) -> None:
    """Pixels of a view and its swap that don't depend on the foregrounds' colour show the same background."""
    views = Views(size=24, scale=(0.5, 1), jitter=(0, 0, 0, 0), gray=0, blur=0)
    pipeline = ViewPipeline(views, Background(**background, swap=0.5, swap_negative=negative))
    black, white = (next(batches(Painted(sample, value), pipeline).epoch(0)) for value in (0, 255))
    (black_query, black_swap), (white_query, white_swap) = (
        (batch.views[0][batch.swapped], batch.swaps) for batch in (black, white)
    )
    outside = (black_query == white_query).all(dim=-1) & (black_swap == white_swap).all(dim=-1)
    assert outside.float().mean() > 0.05
    assert torch.equal(black_swap[outside], black_query[outside])
    foreground = (black_swap != white_swap).any(dim=-1).flatten(1)
    assert (foreground.any(dim=1)).float().mean() > 0.9
    if negative == "foreground":
        assert not torch.equal(foreground, (black_query != white_query).any(dim=-1).flatten(1))


def test_loader_processes_hand_over_their_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path)
    lost = sorted((tmp_path / "photos/train").rglob("*.jpg"))[1]
    lost.unlink()
    lost.symlink_to("lost.jpg")
    pipeline = ViewPipeline(Views(size=24), Background(remove=0, random=0))
    made = batches(Folder(tmp_path / "photos", "train", resize=32), pipeline, 8, workers=2)
    for _ in range(3):  # so that both processes have met the file
        assert sum(batch.counts["unreadable"] for batch in made.epoch(0)) == 1
    assert [line for line in caplog.messages if f"{lost}: cannot be read" in line] == caplog.messages
    assert len(caplog.messages) == 1


class _Environment(EmbeddedSample):
    """Tells in which environment it is read."""

    def __getitem__(self, index: int) -> Sample:
        raise UserError(os.environ.get("AWS_ENDPOINT_URL", "none"))


def test_loader_processes_have_the_environment_of_now(pipeline: ViewPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork server that starts them is as old as the first loader of this process."""
    for address in ("http://first", "http://second", None):
        if address:
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        else:
            monkeypatch.delenv("AWS_ENDPOINT_URL")
        with pytest.raises(UserError, match=f"^{address or 'none'}$"):
            list(batches(_Environment("validation", 32), pipeline, workers=1).epoch(0))


@pytest.mark.parametrize(
    "changed",
    [{}, {"photometric": "device"}, {"albumentations": [{"ColorJitter": {}}, {"GaussNoise": {}}]}],
    ids=["cpu", "device", "albumentations"],
)
def test_batches_made_in_parts_are_those_of_one_process(sample: EmbeddedSample, changed: dict[str, Any]) -> None:
    views = VIEWS.model_copy(update=changed)
    pipeline = ViewPipeline(views, Background(remove=0.3, random=0.3, swap=0.4))
    alone = list(batches(sample, pipeline, 96).epoch(0))
    loader = batches(sample, pipeline, 96, workers=2, memory_gb=0.0025)
    assert loader._tasks.parts == 3
    for _ in range(2):
        made = list(loader.epoch(0))
        assert_equal(made, alone)
        for ours, theirs in zip(made, alone, strict=True):
            assert ours.swaps is not None and theirs.swaps is not None and len(ours.swaps)
            assert torch.equal(ours.swaps, theirs.swaps)
            assert ours.swapped is not None and torch.equal(ours.swapped, theirs.swapped)  # type: ignore[arg-type]


def test_batches_ahead_that_do_not_fit_are_refused_and_by_default_told(
    sample: EmbeddedSample, pipeline: ViewPipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"data\.loader_memory_gb: 0\.00 GB for batches made ahead are more than 1e-05"):
        batches(sample, pipeline, workers=2, memory_gb=1e-5)
    monkeypatch.setattr("bgsweep.data.shared_buffers.memory_limit", lambda: 40_000)
    batches(sample, pipeline, workers=2)
    assert "are more than a quarter of this process's memory, 0.00 GB" in caplog.text


def test_a_batch_of_4096_for_byol_takes_six_gigabytes_ahead() -> None:
    slot = 4096 * 2 * 224 * 224 * 3
    assert slots_of(30, 1) * slot > 37e9
    parts = parts_within(slot, 4096, tasks=30, memory_gb=6.2)
    assert parts == 16 and slots_of(30, parts) * slot < 6.2e9


def test_the_order_of_a_very_large_set_is_a_permutation_that_takes_no_memory() -> None:
    for length in (2, 3, 1000, 4097):
        order = KeyedOrder(3, 1, length)
        assert sorted(order[0:length].tolist()) == list(range(length))
        assert [order[place] for place in (0, length - 1)] == order[0:length][[0, -1]].tolist()
    assert not np.array_equal(KeyedOrder(3, 1, 1000)[0:1000], KeyedOrder(3, 2, 1000)[0:1000])
    found = KeyedOrder(0, 0, 10**9)[123_456_000:123_457_000]
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < 10**9
    assert abs(np.corrcoef(found, np.arange(1000))[0, 1]) < 0.2
    # As without a limit; a window of it has all that the images of a batch and their donors need.
    window = order_window(epoch_order(7, 2, 100), range(90, 98))
    whole = epoch_order(7, 2, 100)
    assert len(window) == 100 and [window[place] for place in range(68, 100)] == [whole[p] for p in range(68, 100)]
