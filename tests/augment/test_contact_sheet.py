import numpy as np

from bgsweep.augment import contact_sheet
from bgsweep.augment.contact_sheet import area_histogram, outlined, preview, view_grid
from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.config import Background, Views
from bgsweep.data.sample import Sample


def test_grid_holds_every_image_with_its_pixels() -> None:
    generator = np.random.default_rng(0)
    rows = [[generator.integers(0, 200, (side, side, 3), dtype=np.uint8) for side in (32, 128, 64)] for _ in range(2)]
    sheet = view_grid(rows, ["a", "b", "c"], [["", "", ""]] * 2)
    cells = np.lib.stride_tricks.sliding_window_view(sheet, (contact_sheet.CELL, contact_sheet.CELL), axis=(0, 1))
    for row in rows:
        for image in row:
            enlarged = image.repeat(128 // len(image), 0).repeat(128 // len(image), 1)
            corners = np.argwhere((cells[..., 0, 0] == enlarged[0, 0]).all(-1))
            assert any(np.array_equal(cells[y, x], enlarged.transpose(2, 0, 1)) for y, x in corners)


def test_captions_are_written_below_and_headers_above() -> None:
    white = np.full((128, 128, 3), 255, np.uint8)
    plain = view_grid([[white]], [""], [[""]])
    rows = {
        name: np.flatnonzero((view_grid([[white]], [header], [[caption]]) != plain).any((1, 2)))
        for name, header, caption in (("header", "view 1", ""), ("caption", "", "removed"))
    }
    image = np.flatnonzero((plain == 255).all(-1).any(1))
    assert 0 < rows["header"].max() < image.min() and image.max() < rows["caption"].min() < len(plain) - 1


def test_outline_runs_along_the_mask(samples: list[Sample]) -> None:
    for sample in samples:
        gray = np.full_like(sample.image, 90)
        drawn = (outlined(gray, sample.mask) != 90).any(-1)
        assert 0.01 < drawn.mean() < 0.2
        assert not (outlined(gray, np.zeros_like(sample.mask)) != 90).any()


def test_preview_has_a_row_for_each_sample_and_a_column_for_each_view(samples: list[Sample]) -> None:
    small = ViewPipeline(Views(size=32), Background(remove=0.5, random=0.5))
    multi = ViewPipeline(Views(size=32, small_crops=2, small_size=16), Background(remove=0.5))
    sheet, wide, long = preview(small, samples[:3]), preview(multi, samples[:3]), preview(small, samples[:5])
    assert wide.shape[1] - sheet.shape[1] == 2 * (contact_sheet.CELL + 8)
    assert long.shape[0] - sheet.shape[0] == 2 * (contact_sheet.CELL + 28)
    assert np.array_equal(preview(small, samples[:3]), sheet)
    assert not np.array_equal(preview(small, samples[:3], epoch=1), sheet)


def test_each_method_adds_a_column(samples: list[Sample]) -> None:
    pipeline = ViewPipeline(Views(size=24), Background())

    def black(sample: Sample, donor: Sample) -> ViewResult:
        return ViewResult(np.zeros((8, 8, 3), np.uint8), "removed")

    plain, more = preview(pipeline, samples[:2]), preview(pipeline, samples[:2], methods={"black": black})
    assert more.shape[1] > plain.shape[1] and np.array_equal(more[:, : plain.shape[1] - 20], plain[:, :-20])
    assert not more[100, plain.shape[1] + 60].any(), "the method's picture"


def test_histogram_stands_where_the_areas_are() -> None:
    sheet = area_histogram([0.02] * 10 + [0.52] * 40, 0.1, 0.9, 600)
    assert sheet.shape[1] == 600
    dark = (sheet[60:170] == (120, 124, 130)).all(axis=2).sum(axis=0)
    assert dark[40 + round(0.52 * 520)] > 3 * dark[40 + round(0.02 * 520)] > 0
    assert dark[40 + round(0.75 * 520)] == 0
