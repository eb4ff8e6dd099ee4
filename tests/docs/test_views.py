"""docs/views.md: its YAML is valid and its Python runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config.load import resolve
from bgsweep.data.sample import Sample

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_files_are_valid() -> None:
    short, dino, space = (yaml.safe_load(block) for block in blocks("yaml"))
    config = resolve(short | space)
    assert len(config.experiment.views.albumentations or []) == 3 and len(config.space.parameters) == 2
    experiment = resolve(dino | {"experiment": dino["experiment"] | {"method": {"name": "dino"}}}).experiment
    policy = ViewPipeline(experiment.views, experiment.background).policy()["views"]
    steps = [[each["__class_fullname__"] for each in view["transform"]["transforms"][2:]] for view in policy]
    common = ["ColorJitter", "ToGray", "GaussianBlur"]
    assert steps == [common, [*common, "Solarize"], *[common] * 8]


@pytest.mark.parametrize("number", [0, 1], ids=["albumentations", "torchvision"])
def test_the_code_runs(samples: list[Sample], number: int) -> None:
    names: dict[str, Any] = {"image": samples[0].image, "mask": samples[0].mask}
    exec(blocks("python")[number], names | {"other_image": samples[1].image, "other_mask": samples[1].mask}, names)
    assert names["view"].shape in ((96, 96, 3), (3, 96, 96))
    assert number or names["negative"].shape == samples[0].image.shape
