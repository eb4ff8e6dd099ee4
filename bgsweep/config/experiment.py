"""`Experiment`: everything that decides what one training run computes."""

from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bgsweep.config.albumentations_steps import default_of
from bgsweep.config.base import Section, divisor, multiple, part_of
from bgsweep.config.data import Data
from bgsweep.config.digest import digest_of
from bgsweep.config.methods import MethodConfig, MoCoV2Config, method_section, method_sections, supporting
from bgsweep.config.plugins import UnknownPart
from bgsweep.config.schedule import as_schedule, highest
from bgsweep.config.training import Encoder, Optimizer, Training, Workers
from bgsweep.config.views import Background, Views
from bgsweep.errors import UserError

STEPS = "views.albumentations."
"""Beginning of the keys of arguments in an Albumentations pipeline, such as `views.albumentations.ColorJitter.p`."""


class Experiment(Section):
    """Everything that decides what a run computes. Its digest identifies the run and keys its checkpoints."""

    seed: int = Field(0, ge=0, description="of weights and of all random draws")
    data: Data = Data()
    views: Views = Views()
    background: Background = Background()
    method: MethodConfig = MoCoV2Config()
    encoder: Encoder = Encoder()
    optimizer: Optimizer = Field(Optimizer(), validate_default=True)
    training: Training = Training()
    workers: Workers = Workers()

    @field_validator("method", mode="before")
    @classmethod
    def _default_method(cls, value: Any) -> Any:
        return {"name": "moco_v2", **value} if isinstance(value, dict) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _defaults_of_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        defaults = info.data["method"].optimizer_defaults if "method" in info.data else {}
        if isinstance(value, Optimizer):
            value = value.model_dump(exclude_unset=True)
        return _filled(defaults, value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Not checked in Data: an evaluation suite has no search, and reads train and test alone.
        if self.data.test is not None and self.data.validation == self.data.test:
            raise ValueError(
                f"data.test: {self.data.test!r} is also the validation split, which the search optimises; name another "
                "folder, or `test: null`, which holds a share of train out"
            )
        if self.training.batch_size % self.workers.count:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} is not a multiple of "
                f"workers.count {self.workers.count}; {multiple(self.training.batch_size, self.workers.count)} is"
            )
        self._check_min_count()
        if (side := self.data.decode_side) is not None and side < self.views.least_side:
            raise ValueError(
                f"data.decode_side: {side} px would leave crops smaller than their views; set it to "
                f"{self.views.least_side} or more"
            )
        if not self.data.has_masks:
            self._check_without_masks()
        self._check_gpus()
        share = self.training.batch_size // self.workers.count
        if share % self.training.accumulate:
            raise ValueError(
                f"training.accumulate {self.training.accumulate} does not divide a worker's batch of {share}; "
                f"{divisor(self.training.accumulate, share)} does"
            )
        self._check_method(share // self.training.accumulate)
        return self

    def _check_without_masks(self) -> None:
        # A misspelt folder beside a recipe for the bundled images also lacks masks; the folder is the first mistake.
        wrong = self.data.missing_images
        if self.background.active:
            raise ValueError(
                f"{wrong}background: background augmentations need a foreground mask for every image; set data.masks"
                f"{self.data.included_masks}"
            )
        if self.data.shortcut is not None:
            raise ValueError(f"{wrong}data.shortcut: recomposed images need foreground masks; set data.masks")
        if self.data.mask_noise.active:
            raise ValueError(f"{wrong}data.mask_noise: there are no masks to degrade; set data.masks")

    def _check_min_count(self) -> None:
        least, count = self.workers.min_count, self.workers.count
        if least is None:
            return
        if least > count or count == 1:
            raise ValueError(
                f"workers.min_count: {least} is not below workers.count {count}; lower it, or leave it out"
            )
        if not self.worker_counts()[:-1]:
            raise ValueError(
                f"workers.min_count: no number from {least} to {count - 1} divides training.batch_size "
                f"{self.training.batch_size} and the groups of method.split_bn times workers.count; change one of them"
            )

    def worker_counts(self) -> list[int]:
        """The numbers of workers that can train this, from `workers.min_count` to `workers.count`."""
        count = self.workers.count
        return [each for each in range(self.workers.min_count or count, count) if self._trains_with(each)] + [count]

    def _trains_with(self, count: int) -> bool:
        try:
            self.with_workers(count)
        except ValueError:
            return False
        return True

    def with_workers(self, count: int) -> "Experiment":
        """The same run by another number of workers: batch and MoCo's groups of BatchNorm stay the same.

        Raises:
            ValueError: they cannot be divided by it.
        """
        if count == self.workers.count:
            return self
        values: dict[str, Any] = {"workers.count": count, "workers.min_count": None}
        if (split := getattr(self.method, "split_bn", None)) is not None:
            groups, rest = divmod(split * self.workers.count, count)
            if rest:
                raise ValueError(f"{split * self.workers.count} groups cannot be divided by {count} workers")
            values["method.split_bn"] = groups
        return self.with_values(values)

    def _check_gpus(self) -> None:
        workers = self.workers
        if workers.count == 1 or workers.device == "cpu" or workers.gpus is None:
            return
        if workers.gpus == 0 and workers.device == "cuda":
            raise ValueError("workers.gpus: 0 gives workers no GPU, and workers.device asks for cuda; leave it out")
        if workers.gpus % 1:
            raise ValueError(
                f"workers.gpus: {workers.gpus:g} would put several workers on one GPU, which NCCL refuses; leave it "
                "out, or use workers.count: 1 with search.gpus for trials that share a GPU"
            )

    def _check_method(self, part: int) -> None:
        """Check what the method does not support; a `part` is the images that one worker computes at a time."""
        method = self.method
        method.check_batch(self.training.batch_size, part)
        if self.training.sync_bn and not method.supports_sync_bn:
            raise ValueError(
                f"training.sync_bn: with {method.name} a query could recognise its key by shared statistics; use "
                "method.split_bn"
            )
        if highest(self.background.swap) and not method.supports_swaps:
            able = supporting("supports_swaps")
            raise ValueError(f"background.swap: BG_Swaps adds negatives, and {method.name} has none; use one of {able}")
        if self.views.small_crops and not method.supports_small_crops:
            able = supporting("supports_small_crops")
            raise ValueError(f"views.small_crops: {method.name} takes none; set it to 0, or use one of {able}")

    @property
    def digest(self) -> str:
        """16 hex digits that identify what a run computes: see `digest_of`."""
        held_out = None in (self.data.validation, self.data.test)
        return digest_of(self.model_dump(mode="json"), held_out, swaps=highest(self.background.swap) > 0)

    def without_background(self) -> dict[str, float]:
        """Dotted keys and values that switch off the background augmentations that are on."""
        names = ("remove", "random", "swap")
        return {f"background.{name}": 0.0 for name in names if highest(getattr(self.background, name))}

    def has(self, key: str) -> bool:
        """True if there is a value under a dotted key: each method has keys of its own."""
        section, _, leaf = key.partition(".")
        if key.startswith(STEPS):  # the pipeline may lack the transform
            try:
                self.value(key)
            except KeyError:
                return False
        return section != "method" or leaf in type(self.method).model_fields

    def value(self, key: str) -> Any:
        """The value under a dotted key; of a transform's argument that is not given, Albumentations' default."""
        found: Any = self.model_dump()
        steps, parts = key.startswith(STEPS), key.split(".")
        for depth, part in enumerate(parts, start=1):
            if steps and depth == len(parts) and isinstance(found, dict) and part not in found:
                return default_of(parts[-2], part)
            found = part_of(found if isinstance(found, dict) or steps else as_schedule(found), part)
        return found

    def with_values(self, values: dict[str, Any]) -> "Experiment":
        """The same run with dotted keys changed, e.g. ``{"background.remove": 0.3}``; validated anew.

        Another method starts from its own defaults: its keys of the same name mean something else. So does its
        optimizer, but for what this experiment does not have by default.
        """
        tree = self.model_dump()
        if (method := values.get("method.name", self.method.name)) != self.method.name:
            tree["method"] = {}
            tree["optimizer"] = self._optimizer_of(method, values.get("optimizer.name"))
        for key, value in values.items():
            *path, leaf = key.split(".")
            branch = tree
            for part in path:
                if path[0] in ("background", "optimizer") and not isinstance(branch[part], dict):
                    branch[part] = as_schedule(branch[part])  # `background.random.from` beside `random: 0.2`
                try:
                    branch = part_of(branch, part)
                except KeyError:
                    raise UserError(f"{key}: the experiment has nothing under {part}; name a key of it") from None
            branch[leaf] = value
        return Experiment.model_validate(tree)

    def _optimizer_of(self, method: Any, name: Any) -> dict[str, Any]:
        """The section `optimizer` as if the file had named another method, and an optimiser if ``name`` is not None."""
        # Compared with the defaults, since a tree that was dumped and read again does not say which values were given.
        usual, chosen = Optimizer.model_validate(self.method.optimizer_defaults), dict[str, Any]()
        if self.optimizer.name != usual.name:
            usual, chosen = Optimizer(), {"name": self.optimizer.name}
        common = usual.model_dump()
        chosen |= {key: value for key, value in self.optimizer.model_dump().items() if value != common[key]}
        if name is not None:
            chosen["name"] = name
        try:
            defaults = method_section(method).optimizer_defaults if isinstance(method, str) else {}
        except UnknownPart:  # told with its key when the whole is validated
            defaults = {}
        return {**Optimizer().model_dump(), **_filled(defaults, chosen)}


def _filled(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of `optimizer` that are given, with a method's defaults if they name no other optimiser."""
    applies = given.get("name", defaults.get("name")) == defaults.get("name")
    return {**defaults, **given} if applies else given


def mutable(key: str) -> bool:
    """True if PBT may change this key during training: it shapes neither the network nor the state that is kept."""
    section, _, leaf = key.partition(".")
    if section == "method":
        return any(leaf in each.mutable for each in method_sections())
    # `decay_all` decides how many groups of parameters the optimiser has.
    return section in ("background", "views") or (section == "optimizer" and leaf not in ("name", "decay_all"))
