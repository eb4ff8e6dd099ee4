"""The foreground areas by which sets are refused, and which `preview` shows."""

import math

import numpy as np
import pytest

from bgsweep.augment.pipeline import LARGE_VIEWS, ViewPipeline
from bgsweep.config import Experiment
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.kept_backgrounds import view_areas
from bgsweep.seeding import view_key


@pytest.mark.parametrize("seed", [0, 3])
def test_areas_are_those_of_the_views_that_training_makes(seed: int) -> None:
    """A view keeps its background as soon as `min_area` is above its area."""
    source = EmbeddedSample("test")
    told, experiment = [], Experiment.model_validate({"seed": seed, "views": {"size": 16}})
    for sample in (source[index] for index in range(0, len(source), 20)):
        areas = view_areas(experiment, sample)
        assert len(areas) == LARGE_VIEWS
        for view, area in enumerate(areas):
            key, found = view_key(seed, 0, sample.id, view), []
            for least in (area, math.nextafter(area, 2)):
                changes = {"min_area": least, "max_area": 1.0, "remove": 1.0}
                pipeline = ViewPipeline(experiment.views, experiment.background.model_copy(update=changes))
                found.append(pipeline.make(sample, lambda: source[0], key, view).applied)
            assert found == ["removed", "kept_small"], sample.id
            told.append(area)
    assert np.ptp(told) > 0.2
