"""What `bgsweep evaluate --suite` and `bgsweep compare` read: the sets to judge an encoder on, and how."""

from typing import Annotated, Literal

from pydantic import Field

from bgsweep.config.evaluate import Evaluate
from bgsweep.config.experiment import Data
from bgsweep.config.section import Count, Positive, Section


class Pictures(Section):
    """How photographs of published sets become pictures: the shorter side, then the central square."""

    resize: Count = 256
    crop: Count = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Sets(Section):
    """Where published sets lie, each in the layout that its authors give it."""

    imagenet_val: str | None = Field(None, description="ILSVRC2012_val_*.JPEG, in one folder or in a folder a wnid")
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
    cue_conflict: str | None = Field(None, description="SHAPE/SHAPE1-TEXTURE2.png")


class FewLabels(Section):
    """Which training photographs keep their labels, and the linear probe on them."""

    one_percent: str | None = Field(None, description="list of file names (SimCLR's 1percent.txt); null: drawn")
    ten_percent: str | None = Field(None, description="list of file names (SimCLR's 10percent.txt); null: drawn")
    seed: int = Field(0, ge=0)


class Attacks(Section):
    """FGSM and PGD within an L-infinity ball around each picture, in pixel space."""

    eps: tuple[Positive, ...] = Field((0.25, 0.5, 1.0, 2.0, 4.0), description="radii in 1/255")
    steps: Count = 20
    restarts: Count = 1
    images: Count = Field(5000, description="pictures that are attacked, spread over the set")
    seed: int = Field(0, ge=0)


class Corruptions(Section):
    """ImageNet-C made on the fly."""

    images: Count | None = Field(None, description="photographs that are corrupted, spread over the set; null: all")
    seed: int = Field(0, ge=0)


class SuiteFile(Section):
    """One YAML file: the user's labelled photographs, published sets, and the settings of the protocols."""

    data: Data | None = Field(None, description="labelled photographs, as in an experiment")
    size: Count = Field(224, description="side in pixels of the squares that `data` is seen in")
    sets: Sets = Sets()
    pictures: Pictures = Pictures()
    evaluate: Evaluate = Evaluate()
    few_labels: FewLabels = FewLabels()
    attacks: Attacks = Attacks()
    corruptions: Corruptions = Corruptions()
    bootstrap: Annotated[int, Field(ge=100)] = Field(10_000, description="resamplings of `bgsweep compare`")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = Field(4, description="threads that decode photographs of published sets")
