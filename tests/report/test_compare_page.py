"""The page that compares encoders and sweeps, in a browser."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bgsweep.evaluation.audit.measure import thumbnail
from bgsweep.report.compare_page import Compared, Search, compare_page
from bgsweep.report.page import SweepResults

NAMES = ("timm:vit_small_patch16_224=/weights/of/somebody/file.pth", "one", "one/t03", "resnet50=b.pth", "two")


def compared(count: int) -> Compared:
    """Encoders with a few values, of which one has no interval and one is of no images."""
    found = {"value": 0.02, "lower": 0.01, "upper": 0.03, "significant": True}
    none = {"value": None, "lower": None, "upper": None, "significant": False}
    rows: list[dict[str, Any]] = [
        {"evaluator": "knn", "name": name, "values": [0.5] * count, "differences": [found] * (count - 1)}
        for name in ("knn_top1", "knn_mean_per_class")
    ]
    rows.append({"evaluator": "own", "name": "lost", "values": [None] * count, "differences": [none] * (count - 1)})
    origin = {"network": "resnet50", "weights": "/weights/of/somebody/" + "long" * 20}
    models = [{"name": name, "model": name, "origin": origin} for name in NAMES[:count]]
    settings = {"optimizer.lr": [0.1, *[None] * (count - 1)]}
    return Compared(models, rows, "10000 resamplings", {"knn": {"k": 20}}, {"one: own": "no <memory>"}, settings)


@pytest.mark.parametrize(("count", "width", "scheme"), [(2, 400, "dark"), (5, 1280, "light")])
def test_the_page_is_drawn(look: Callable[..., Any], small: SweepResults, count: int, width: int, scheme: str) -> None:
    image = thumbnail(np.full((96, 96, 3), 90, np.uint8))
    pictures = [{"value": "knn_top1", "counts": [3, 0], "images": [[image] * 3, []]}, *[{}] * (count - 2)]
    page = compare_page(compared(count), [Search(small, "ended", [(10, 3, 0.2), (20, 6, 0.4)])] * 2, pictures)
    assert len(page) < 5e6
    view = look(page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert view.locator(".js-plotly-plot").count() == 3
    text = view.locator("#results").inner_text()
    assert "no <memory>" in text and "timm:vit_small_patch16_224=file.pth" in text and "lost" in text
    assert "optimizer.lr" in view.locator("#settings").inner_text()
    assert (
        view.locator(".apart img").count() == 3 and "alone is right on 3 images" in view.locator(".apart").inner_text()
    )
    view.close()


def test_models_alone_have_no_section_of_sweeps(look: Callable[..., Any]) -> None:
    view = look(compare_page(compared(2), []))
    assert view.locator("#sweeps, #course").count() == 0 and view.locator(".js-plotly-plot").count() == 1
    view.close()
