"""Published recipes on small folders in the published layouts: runs, resumed runs, and what stands beside them."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.forms import cifar

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["encoder.name=resnet10", "encoder.width=4", "encoder.stem=small", "views.size=16", "training.batch_size=8"]
HEADS = ["method.hidden_dim=16", "method.queue_size=16", "data.loader_workers=0"]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import one another by name, as they do when they are run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_imagenette_trains_both_arms_and_goes_on_where_it_was_interrupted(imagenette: Path, tmp_path: Path) -> None:
    import imagenette as benchmark
    import published

    words = ["--methods", "moco_v2", "--out", str(tmp_path / "out"), "--device", "cpu", "--set", *SMALL, *HEADS]
    rows = benchmark.main([str(imagenette), *words, "--epochs", "2", "--every", "1"])
    assert [(row["background"], row["epoch"], row["epochs"]) for row in rows] == [("none", 2, 2), ("background", 2, 2)]
    folder = tmp_path / "out" / "moco_v2-none-2"
    whole = [json.loads(line) for line in (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["epoch"] for each in whole] == [1, 2]
    assert [("bg_gap" in each) for each in whole] == [False, True]
    assert rows[0]["bg_gap"] == pytest.approx(whole[1]["mixed_same"] - rows[0]["mixed_rand"])

    parser = benchmark.parser_of("")
    published.arguments(parser, benchmark.RECIPES, 2)
    options = parser.parse_args([*words, "--every", "1"])
    config = published.configuration(benchmark.RECIPES["moco_v2"], {}, 2, options, benchmark.KNN, 0)
    run, told = tmp_path / "interrupted", list[str]()

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        published.train(config, benchmark.splits(imagenette), run, stop)
    again = published.train(config, benchmark.splits(imagenette), run, told.append)
    assert told[0] == "goes on after epoch 1"
    assert [(each["loss"], each["knn_top1"]) for each in again] == [(each["loss"], each["knn_top1"]) for each in whole]


def test_as_many_epochs_as_fit_are_trained(
    imagenette: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import imagenette as benchmark
    import published

    assert published.Pace(start=10, epoch=5, evaluation=1).epochs(69) == 10
    assert published.Pace(start=10, epoch=5, evaluation=1).epochs(5) == 1
    words = ["--methods", "moco_v2", "--arms", "none", "--out", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit):
        benchmark.main([str(imagenette), *words, "--pace", "--set", *SMALL, *HEADS])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["epoch"] > 0 and found["evaluation"] > 0 and found["start"] >= 0


def test_an_archive_is_unpacked_and_what_is_none_is_refused(imagenette: Path, tmp_path: Path) -> None:
    import imagenette as benchmark

    archive = tmp_path / "imagenette.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(imagenette, imagenette.name)
    root = benchmark.unpacked(archive, tmp_path / "unpacked")
    assert len(benchmark.splits(root).train) == len(benchmark.splits(imagenette).train) == 20
    with pytest.raises(SystemExit, match="holds no images/train"):
        benchmark.unpacked(tmp_path / "unpacked", tmp_path)


def test_published_values_stand_at_their_own_epochs_only() -> None:
    import cifar10
    import imagenette as benchmark
    import published

    def curve(*epochs: int) -> list[dict[str, float]]:
        return [{"epoch": each, "knn_top1": 0.5, "images_per_second": 1.0} for each in epochs]

    moco = cifar10.RECIPES["moco_v2"]
    rows = published.rows(moco, "moco_v2", "none", 200, curve(10, 11, 200))
    assert [(row["epoch"], row["published"]) for row in rows] == [(10, 0.4803), (200, 0.8258)]
    assert [row["published"] for row in published.rows(moco, "moco_v2", "none", 10, curve(10))] == [None]
    text = published.body(rows, cifar10.RECIPES, "note")
    assert "| moco_v2 | none | 10 of 200 | 50.0 | 50.0 | 48.0 |  |  | 1 |" in text and "- moco_v2: the notebook" in text
    assert benchmark.RECIPES["swav"].beside(800, 800) == 0.902


def test_cifar10_is_read_from_its_authors_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cifar10

    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    cifar(tmp_path / "given" / "cifar-10-batches-py")
    words = ["--out", str(tmp_path / "out"), "--methods", "moco_v2", "--epochs", "1", "--device", "cpu"]
    rows = cifar10.main([str(tmp_path / "given"), *words, "--set", *SMALL, "method.split_bn=2", *HEADS])
    assert [(row["background"], row["epoch"], row["published"]) for row in rows] == [("none", 1, None)]
