"""The pipeline's benchmark: other libraries' views, and rows that were not measured."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another by name, as they do when they are run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_library_that_is_not_installed_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import peers
    from made_images import make_images

    def there(module: str) -> object:
        return module if module == "torchvision" else None

    monkeypatch.setattr(peers, "find_spec", there)
    found, left_out = peers.peers()
    assert list(found) == ["torchvision v2, uint8 tensors"]
    assert "kornia on the CPU: left out; `pip install --no-deps kornia kornia-rs` adds it" in left_out
    images, _ = make_images(tmp_path, 2)
    found["torchvision v2, uint8 tensors"](sorted(images.rglob("*.jpg")))


def test_a_module_is_loaded_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peers

    inner = tmp_path / "heavy_peer" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("import not_there\n")
    (inner / "views.py").write_text("SIZE = 224\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert peers.module_alone("heavy_peer.inner.views").SIZE == 224


def test_ratios_are_of_the_rows_that_were_measured() -> None:
    import pipeline

    seconds = {pipeline.BASE: [6.0, 9.0, 4.0], "moco_v2, exact, bg": [2.0, 2.0, 2.0], "moco_v2, exact": [1.0, 2.0, 4.0]}
    assert pipeline.summary(seconds) == {"moco_v2_vs_lightly": 3.0, "background_cost": 1.0}
