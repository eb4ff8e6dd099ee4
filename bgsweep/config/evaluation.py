"""Evaluation settings: during a run, at its end and by a suite; and the registry name of the best encoder."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from bgsweep.config.base import Count, Positive, Section
from bgsweep.config.data import Data
from bgsweep.config.metrics import Metric, MetricSection

Variant = Literal["original", "only_fg", "no_fg", "only_bg_t", "mixed_same", "mixed_rand", "only_bg_b", "mixed_next"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class Knn(Section):
    """Weighted k-nearest-neighbour vote on L2-normalised features; the defaults are DINO's."""

    k: Count = Field(20, description="number of neighbours")
    temperature: Positive = 0.07


class Linear(Section):
    """Softmax regression on frozen, standardised features; rate and decay chosen on a held-out part of train."""

    epochs: Count = 100
    lrs: tuple[Positive, ...] = Field((0.01, 0.03, 0.1, 0.3), min_length=1, description="learning rates that are tried")
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 1e-4, 1e-3, 1e-2), min_length=1)
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = Field(0, ge=0)


class Evaluate(Section):
    """Evaluation during a run (`every`, on the validation split) and at its end (on the test split)."""

    every: Count = Field(1, description="epochs between online evaluations; the last epoch is always evaluated")
    variant: Variant = Field("original", description="the images that kNN and the linear probe are measured on")
    bg_gap: bool = Field(False, description="also measure BG-Gap by kNN at each online evaluation")
    metrics: tuple[Metric, ...] = Field(
        (), description="further metrics of each online evaluation (docs/metrics.md), by name or with their settings"
    )
    knn: Knn = Knn()
    online_bank: Count | None = Field(
        100_000,
        description="training images that kNN during training compares with, the same number of each class (100 of "
        "ImageNet's); smaller sets are taken whole; null: all. The evaluation at the end always takes all",
    )
    linear: Linear = Linear()
    batch_size: Count = 256
    repeats: Count = Field(1, description="number of backgrounds for each foreground in Mixed-Same and Mixed-Rand")
    seed: int = Field(0, ge=0)

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[MetricSection, ...]) -> tuple[MetricSection, ...]:
        found: dict[str, MetricSection] = {}
        for one in metrics:
            if found.setdefault(one.name, one) != one:
                raise ValueError(f"{one.name} is named twice, with other settings; leave one of the two out")
        return tuple(found.values())

    def with_metrics(self, names: Iterable[str]) -> Self:
        """The same with further metrics, where they are not among those configured; BG-Gap by its own key."""
        known = {one.name for one in self.metrics} | {"knn"} | ({"bg_gap"} if self.bg_gap else set())
        added = [each for each in dict.fromkeys(names) if each not in known]
        return type(self).model_validate({**self.model_dump(), "metrics": [*self.metrics, *added]}) if added else self


class Register(Section):
    """Name and alias in the MLflow model registry."""

    name: str = "bgsweep-encoder"
    alias: str = "champion"
    checkpoints: bool = Field(
        False, description="log the encoder of each kept checkpoint as an MLflow model too, not only the winner's"
    )

    @field_validator("name")
    @classmethod
    def _fits_a_model_uri(cls, name: str) -> str:
        """MLflow itself refuses `/` and `:` only, but finds no ``models:/NAME@ALIAS`` with the others."""
        if not re.fullmatch(r"[^/:@?#%\x00-\x1f]{1,250}", name) or name != name.strip() or name in (".", ".."):
            raise ValueError(
                "MLflow's registry does not accept this name; leave out / : @ ? # % and surrounding spaces"
            )
        if name.startswith("m-"):
            raise ValueError("MLflow takes names that begin with m- for ids of logged models; choose another name")
        return name

    @field_validator("alias")
    @classmethod
    def _free(cls, alias: str) -> str:
        check_alias(alias)
        if alias == CHALLENGER:
            raise ValueError(f"{CHALLENGER} is the alias of winners that do not become champion; choose another")
        return alias


CHALLENGER = "challenger"


def check_alias(alias: str) -> None:
    """Raise `ValueError` if MLflow does not accept an alias of a version."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise ValueError("use letters, digits, `_` and `-` in an alias")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ValueError("MLflow reserves `latest` and v1, v2, ...; choose another alias, such as champion")


class Preprocessing(Section):
    """Preprocessing of published data sets: resize the shorter side, then crop the central square."""

    resize: Count = 256
    crop: Count = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Sets(Section):
    """Folders and files of published data sets, each in its authors' layout."""

    imagenet_val: str | None = Field(
        None, description="ILSVRC2012_val_*.JPEG, in one folder or in a folder for each wnid"
    )
    real: str | None = Field(None, description="real.json of reassessed-imagenet")
    imagenet9: str | None = Field(None, description="the backgrounds challenge: VARIANT/val/CLASS/*.JPEG")
    in_to_in9: str | None = Field(None, description="in_to_in9.json of the backgrounds challenge")
    imagenet_a: str | None = Field(None, description="200 folders named by wnids")
    imagenet_r: str | None = Field(None, description="200 folders named by wnids")
    imagenet_v2: str | None = Field(None, description="1000 folders, 0 to 999")
    imagenet_sketch: str | None = Field(None, description="1000 folders named by wnids")
    imagenet_c: str | None = Field(None, description="CORRUPTION/SEVERITY/WNID/*.JPEG")
    frost: str | None = Field(None, description="frost1.png to frost5.jpg, to make imagenet_c of imagenet_val")
    objectnet: str | None = Field(None, description="images/ and mappings/")
    voc: str | None = Field(None, description="VOC2007/ and VOC2012/ with JPEGImages, Annotations, ImageSets/Main")
    coco: str | None = Field(None, description="train2017/, val2017/ and annotations/instances_*2017.json")
    cue_conflict: str | None = Field(None, description="SHAPE/SHAPE1-TEXTURE2.png")


class Groups(Section):
    """A set whose images have a class and a group, such as Waterbirds."""

    path: str | None = Field(
        None,
        description="CSV file with the columns path, label, group and split (Waterbirds' too), or a folder",
    )
    form: str | None = Field(
        None,
        description="what the names of the folders say: urbancars, metashift, spawrious, counteranimal, or such as "
        "{split}/{label}/{group}",
    )
    draws: Count = Field(10, description="balanced draws whose last layers are averaged (DFR)")
    seed: int = Field(0, ge=0)


class FewLabels(Section):
    """Training images that keep their labels, for the linear probe on few labels."""

    one_percent: str | None = Field(None, description="list of file names (SimCLR's 1percent.txt); null: drawn")
    ten_percent: str | None = Field(None, description="list of file names (SimCLR's 10percent.txt); null: drawn")
    seed: int = Field(0, ge=0)


class Attacks(Section):
    """FGSM and PGD within an L-infinity ball around each image, in pixel space."""

    eps: tuple[Positive, ...] = Field((0.25, 0.5, 1.0, 2.0, 4.0), description="radii in 1/255")
    steps: Count = 20
    restarts: Count = 1
    images: Count = Field(5000, description="number of images to attack, spread over the set")
    seed: int = Field(0, ge=0)


class Corruptions(Section):
    """ImageNet-C made on the fly."""

    images: Count | None = Field(None, description="number of images to corrupt, spread over the set; null: all")
    seed: int = Field(0, ge=0)


class Detection(Section):
    """Faster R-CNN fine-tuned from the encoder; the defaults are MoCo's on PASCAL VOC."""

    train: tuple[str, ...] | None = Field(None, description="splits; null: VOC2007/trainval and VOC2012/trainval")
    test: str | None = Field(None, description="a split; null: VOC2007/test; of COCO train2017 and val2017")
    body: Literal["c4", "fpn"] = "c4"
    steps: Count = 24_000
    batch_size: Count = 16
    lr: Positive = Field(0.02, description="learning rate; divided by 10 after 3/4 and after 11/12 of the steps")
    warmup: Count = Field(100, description="steps over which the rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    regions: Count = Field(512, description="regions of an image that the classifier is trained on in a step")
    shorter: tuple[Count, ...] = Field(
        tuple(range(480, 801, 32)), min_length=1, description="shorter sides, one of which is drawn for each batch"
    )
    longer: Count = 1333
    test_shorter: Count = 800


class EvaluationWorkers(Section):
    """Ray workers that evaluate large data sets; each holds the encoder, and finds the sets under the same paths."""

    count: Annotated[int, Field(ge=0)] | None = Field(
        None, description="0: none; null: where RAY_ADDRESS names a cluster as many as fit its nodes, else none"
    )
    cpus: Positive = Field(4, description="of each worker")
    gpus: Annotated[float, Field(ge=0)] | None = Field(
        None, description="of each worker; null: 1 where the cluster has GPUs and `device` is not cpu"
    )
    at_least: Count = Field(4096, description="sets of fewer images are evaluated in this process")


class SuiteConfig(Section):
    """A suite's YAML file: labelled images, published data sets, and settings of the protocols."""

    data: Data | None = Field(None, description="labelled images, as in an experiment")
    size: Count = Field(224, description="side in pixels of the square images of `data`")
    sets: Sets = Sets()
    preprocessing: Preprocessing = Preprocessing()
    classifier: Literal["probe", "linear_moco", "linear_swav", "linear_byol"] = Field(
        "probe", description="linear layer on `data` that published sets are judged by, where the model has none"
    )
    evaluate: Evaluate = Evaluate()
    groups: Groups = Groups()
    few_labels: FewLabels = FewLabels()
    attacks: Attacks = Attacks()
    corruptions: Corruptions = Corruptions()
    bootstrap: Annotated[int, Field(ge=100)] = Field(10_000, description="resamplings of `bgsweep compare`")
    detection: Detection = Detection()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: EvaluationWorkers = EvaluationWorkers()
    threads: Count = Field(4, description="threads that decode images of published sets")
    plugins: dict[str, dict[str, Any]] = Field(
        {}, description="settings of evaluators of other packages, each under the name that --suite gives it"
    )

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        """Files of earlier versions name ``preprocessing`` ``pictures``."""
        if isinstance(value, dict) and "pictures" in value and "preprocessing" not in value:
            value = dict(value)
            value["preprocessing"] = value.pop("pictures")
        return value
