"""The page of an audit in a browser: one encoder on a narrow dark screen, five on a wide light one."""

from collections.abc import Callable
from typing import Any

import pytest

from bgsweep.data import Splits
from bgsweep.evaluation.audit.measures import MEASURES, run_measures
from bgsweep.evaluation.audit.outcome import KeptOutcomes, Outcome
from bgsweep.report.audit_page import audit_page, limits, shown
from bgsweep.workflows.audit import _Opened, _pictures, _record
from bgsweep.workflows.audit_images import AuditImages
from tests.evaluation.audit.conftest import ENCODERS, Constructed, Pooled, subject


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Pages of one encoder and of five, of which the last fails in one measure."""
    folder, test = tmp_path_factory.mktemp("audit"), Constructed("test", 6, 1)
    splits = Splits(Constructed("train", 6, 0), test, test)
    audited = []
    for number, encoder in enumerate(("centre", "background", "foreground")):
        one = subject(Pooled(ENCODERS[encoder]), splits)
        outcomes = run_measures(one, MEASURES, KeptOutcomes(folder / encoder))
        origin = {"network": "pooled", "weights": f"{encoder}.pth"}
        audited.append((_Opened(f"timm:{encoder}=/a/{encoder}.pth", origin, f"{number}" * 16, folder, one), outcomes))
    last, outcomes = audited[-1]
    audited += [audited[0], (last, {**outcomes, "noise": Outcome("failed", reason="no <memory>")})]
    about = {"folder": "photos", "found": 600, "seed": 0, "masks": "masks", "probe": 24, "audited": 24, "classes": 4}
    images = AuditImages(splits, True, folder, about)
    pictures = _pictures(images, 0)
    return {
        count: audit_page({**_record(audited[:count], images, 0, MEASURES), "variants": pictures}) for count in (1, 5)
    }


@pytest.mark.parametrize(("count", "width", "scheme"), [(1, 400, "dark"), (5, 1280, "light")])
def test_the_page_is_drawn(
    pages: dict[int, str], look: Callable[..., Any], count: int, width: int, scheme: str
) -> None:
    assert len(pages[count]) < 5e6
    view = look(pages[count], viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert view.locator(".verdict").count() == count
    sections = view.locator("section[id]").evaluate_all("all => all.map(one => one.id)")
    assert sections == [one.name for one in MEASURES]
    assert view.locator(".js-plotly-plot").count() == 3
    assert view.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert view.locator("#composites tbody tr, #composites table tr").count() >= 4
    broken = view.locator("img").evaluate_all("all => all.filter(one => one.complete && !one.naturalWidth).length")
    assert not broken
    if count == 5:
        assert "failed: no <memory>" in view.locator("#noise").inner_text()
        assert "Δ" in view.locator("#variants").inner_text()
    view.close()


def test_values_are_per_cent_or_plain_numbers() -> None:
    assert shown("rfs", 0.256) == "0.26" and shown("gap", 0.256) == "25.6 %" and shown("gap", None) == "-"
    assert limits("rfs", {"lower": -0.1, "upper": 0.5}) == "[-0.10, 0.50]"
    assert limits("gap", {"lower": None, "upper": None}) == ""
