"""How encoders are judged, and under which name the best one is registered."""

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from bgsweep.config.base import Count, Positive, Section

Variant = Literal["original", "only_fg", "no_fg", "only_bg_t", "mixed_same", "mixed_rand", "only_bg_b", "mixed_next"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class Knn(Section):
    """Weighted k-nearest-neighbour vote on L2-normalised features; the defaults are DINO's."""

    k: Count = 20
    temperature: Positive = 0.07


class Linear(Section):
    """Softmax regression on frozen, standardised features; rate and decay chosen on a held-out part of train."""

    epochs: Count = 100
    lrs: tuple[Positive, ...] = Field((0.01, 0.03, 0.1, 0.3), min_length=1)
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 1e-4, 1e-3, 1e-2), min_length=1)
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = Field(0, ge=0)


class Evaluate(Section):
    """What is measured during a run (`every`, on the validation split) and at its end (on the test split)."""

    every: Count = Field(1, description="epochs between online evaluations; the last epoch is always evaluated")
    variant: Variant = Field("original", description="the pictures that the online `knn_top1` is measured on")
    bg_gap: bool = Field(False, description="also measure BG-Gap by kNN at each online evaluation")
    knn: Knn = Knn()
    linear: Linear = Linear()
    batch_size: Count = 256
    repeats: Count = Field(1, description="how many backgrounds each foreground meets in Mixed-Same and Mixed-Rand")
    seed: int = Field(0, ge=0)


class Register(Section):
    """The entry in the MLflow model registry."""

    name: str = "bgsweep-encoder"
    alias: str = "champion"

    @field_validator("name")
    @classmethod
    def _fits_a_model_uri(cls, name: str) -> str:
        """MLflow itself refuses `/` and `:` only, but finds no ``models:/NAME@ALIAS`` with the others."""
        if not re.fullmatch(r"[^/:@?#%\x00-\x1f]{1,250}", name) or name != name.strip() or name in (".", ".."):
            raise ValueError("MLflow's registry takes no such name; leave out / : @ ? # % and spaces around it")
        if name.startswith("m-"):
            raise ValueError("MLflow takes names that begin with m- for ids of logged models; choose another")
        return name

    @field_validator("alias")
    @classmethod
    def _free(cls, alias: str) -> str:
        check_alias(alias)
        if alias == CHALLENGER:
            raise ValueError(f"{CHALLENGER} is what winners get that do not become champion; choose another")
        return alias


CHALLENGER = "challenger"


def check_alias(alias: str) -> None:
    """Raise `ValueError` for what MLflow does not take as an alias of a version."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise ValueError("an alias consists of letters, digits, `_` and `-`")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ValueError("MLflow keeps `latest` and v1, v2, ... for itself; choose another alias, such as champion")
