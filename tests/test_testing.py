"""The conformance tests: built-in parts pass them, and parts with one mistake each do not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgsweep import testing
from bgsweep.config.metrics import METRIC_PARTS, MetricSection, Values
from bgsweep.config.search import SEARCHERS
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.sample import Sample
from bgsweep.evaluation.evaluator import EvaluatorClass, Yields, share
from bgsweep.evaluation.metrics import Measured, OnlineMetric
from bgsweep.methods import Method, MethodSection, Step, Views
from bgsweep.models import ImageEncoder, to_unit
from bgsweep.sweep.searchers import TrialSearcher
from tests.inputs import write_images

METHODS: dict[str, dict[str, Any]] = {
    "moco_v2": {"queue_size": 32, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9},
    "byol": {"hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9},
    "swav": {"prototypes": 12, "hidden_dim": 16, "embedding_dim": 8, "freeze_prototypes": 1, "queue_size": 16},
    "simclr": {"hidden_dim": 16, "embedding_dim": 8},
    "vicreg": {"hidden_dim": 16, "embedding_dim": 8},
    "dino": {"prototypes": 12, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9, "batch_norm": True},
    "supervised": {},
}


@pytest.mark.parametrize("name", METHODS)
def test_built_in_methods(name: str) -> None:
    testing.check_method({"name": name, **METHODS[name]})


@pytest.mark.parametrize("name", SEARCHERS)
def test_built_in_searchers(name: str) -> None:
    testing.check_searcher(name)


@pytest.mark.parametrize("name", ["knn", "linear", "backgrounds"])
def test_built_in_evaluators(name: str) -> None:
    testing.check_evaluator(name, evaluate={"repeats": 1, "linear": {"epochs": 2}})


@pytest.mark.parametrize("name", METRIC_PARTS)
def test_built_in_metrics(name: str) -> None:
    small = {"lidar": {"images": 20, "views": 3}, "rotation": {"images": 16, "epochs": 2}}
    small["reliance"] = {"foregrounds": 4, "backgrounds": 4, "resamplings": 10}
    testing.check_metric({"name": name, **small.get(name, {})})


class BrokenConfig(MetricSection):
    """The section of the metrics below."""

    implementation = "tests.test_testing:Broken"
    values: ClassVar[Values] = {"one": "max"}
    mistake: str


class Broken(OnlineMetric):
    """Has one mistake."""

    calls = 0

    def measure(self) -> Iterator[Measured]:
        Broken.calls += 1
        mistake, features = self.settings.mistake, self.context.images.variant("original").values.numpy()
        wrong = {"again": float(Broken.calls), "collapse": float(np.log(features.std())), "number": np.float32(1)}
        error = -1 if mistake == "error" else 1
        yield Measured("other" if mistake == "name" else "one", wrong.get(mistake, 1.0), error)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("name", "it yields other, and its section one"),
        ("again", "one: differs if run again"),
        ("collapse", "one is -inf where all features are the same; give the worst"),
        ("number", "one is .*; give a number"),
        ("error", "one has the standard error -1"),
    ],
)
def test_metrics_that_go_wrong(mistake: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        testing.check_metric({"name": "tests.test_testing:BrokenConfig", "mistake": mistake})


def test_built_in_datasets(tmp_path: Path) -> None:
    write_images(tmp_path)
    testing.check_dataset(lambda: EmbeddedSample("test", 24))
    testing.check_dataset(lambda: Folder(tmp_path / "photos", "train", tmp_path / "masks", 32))


class MeanConfig(MethodSection):
    """The section of the methods below."""

    implementation = "tests.test_testing:Right"
    embedding_dim: int = 8


class Right(Method):
    """Draws two views together, which is all that these tests need of a method."""

    def __init__(self, config: MeanConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_dim, config.embedding_dim)
        self.seen = 0.0

    def embed(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(to_unit(images)))  # type: ignore[no-any-return]

    def loss(self, views: Views) -> Tensor:
        return (self.embed(views.images[0]) - self.embed(views.images[1])).square().mean()

    def forward(self, views: Views) -> Step:
        return Step(self.loss(views))


class Forgetful(Right):
    """Keeps a moving average that no checkpoint holds."""

    def forward(self, views: Views) -> Step:
        self.seen += 0.1
        return Step(self.loss(views) * self.seen)


class Detached(Right):
    """Its encoder learns nothing."""

    def embed(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(to_unit(images)).detach())  # type: ignore[no-any-return]


class Vector(Right):
    """Gives a loss for each image."""

    def forward(self, views: Views) -> Step:
        return Step((self.embed(views.images[0]) - self.embed(views.images[1])).square().mean(dim=1))


class ForgetfulConfig(MeanConfig):
    """See `Forgetful`."""

    implementation = "tests.test_testing:Forgetful"


class DetachedConfig(MeanConfig):
    """See `Detached`."""

    implementation = "tests.test_testing:Detached"


class VectorConfig(MeanConfig):
    """See `Vector`."""

    implementation = "tests.test_testing:Vector"


class NoMethodConfig(MeanConfig):
    """Builds something else."""

    implementation = "tests.test_testing:nothing"


def nothing(config: MeanConfig, encoder: ImageEncoder) -> nn.Module:
    return encoder


def test_a_method_that_does_it_right() -> None:
    testing.check_method({"name": f"{__name__}:MeanConfig"})


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("ForgetfulConfig", "a resumed run differs from an uninterrupted one in encoder"),
        ("DetachedConfig", "no gradient reaches encoder"),
        ("VectorConfig", "the loss is not a scalar but has the shape"),
    ],
)
def test_methods_that_do_not(section: str, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        testing.check_method({"name": f"{__name__}:{section}"})


def test_a_section_that_builds_no_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method.name: .*nothing is not a class derived from bgsweep.methods.Method"):
        testing.check_method({"name": f"{__name__}:NoMethodConfig"})


class Restless(EvaluatorClass):
    """Leaves BatchNorm in training mode while it looks at the images."""

    def measure(self) -> Yields:
        network = self.context.model.network.train()
        network(torch.rand(8, 3, 16, 16))
        yield share("anything", np.ones(3))


def test_an_evaluator_that_moves_batchnorm() -> None:
    with pytest.raises(AssertionError, match=r"it changes the encoder: backbone.bn1.num_batches_tracked, "):
        testing.check_evaluator(f"{__name__}:Restless")


class Unseeded(TrialSearcher):
    """Proposes something else each time."""

    def propose(self, trial: str) -> dict[str, Any]:
        drawn = np.random.default_rng()
        return {key: each.extremes()[drawn.integers(2)] for key, _, each in self.config.space.walk({})}


class Outside(TrialSearcher):
    """Proposes a value beside the range."""

    def propose(self, trial: str) -> dict[str, Any]:
        return {"background.remove": 0.7, "optimizer.lr": 0.03, "method.queue_size": 16}


@pytest.mark.parametrize(
    ("name", "wrong"), [("Unseeded", "proposes others"), ("Outside", "background.remove=0.7 lies outside the space")]
)
def test_searchers_that_go_wrong(name: str, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        testing.check_searcher(f"{__name__}:{name}")


class Shuffled(EmbeddedSample):
    """Lists its images in another order each time."""

    def __init__(self) -> None:
        super().__init__("test", 24)
        self.ids = [self.ids[index] for index in np.random.default_rng().permutation(len(self.ids))]


class Fickle(EmbeddedSample):
    """Gives another image after it was sent to another process."""

    sent = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"sent": True})

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return Sample(found.id, found.image[::-1] if self.sent else found.image, found.label, found.load_mask)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        pytest.param(Shuffled, "other ids, or another order", id="shuffled"),
        pytest.param(lambda: Fickle("test", 24), "another image after pickling", id="fickle"),
    ],
)
def test_datasets_that_change(make: Any, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        testing.check_dataset(make)
