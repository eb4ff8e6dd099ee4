"""Names and contents of mask files that are not 8-bit grey PNGs named as their images."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bgsweep.config.base import Section

OWN_ALPHA = "alpha"
"""The value of `data.masks` that takes each image's own alpha channel."""


def _several(value: Any) -> tuple[int, ...]:
    """Ids from a number or a list of them; from a command line they are texts."""
    values = value if isinstance(value, list | tuple) else [value]
    if not all(str(each).isdigit() for each in values):
        raise ValueError("ids are needed, which are whole numbers, such as [1, 3]")
    return tuple(int(each) for each in values)


Ids = Annotated[tuple[int, ...], BeforeValidator(_several)]


class MaskFormat(Section):
    """Mask files that are not 8-bit grey PNGs named as their images."""

    pattern: str = Field(
        "{stem}.png",
        description="name of an image's mask in the same subfolder: {stem} is the image's name without suffix, {name} "
        "with it; with a leading / the mask lies in the top folder",
    )
    foreground: Ids | Literal["nonzero"] | None = Field(
        None,
        description="ids (classes, instances, palette indices) that are foreground, or nonzero: all but 0 and void",
    )
    void: Ids = Field((), description="ids that are neither, such as 255 along VOC's outlines: they become background")
    channel: Literal["auto", "alpha", "rgb_id"] = Field(
        "auto",
        description="alpha: the alpha channel; rgb_id: ids of R + 256 G + 65536 B; auto: alpha where there is "
        "transparency, else the levels",
    )

    @field_validator("pattern")
    @classmethod
    def _names_a_file(cls, pattern: str) -> str:
        bare = re.sub(r"\{(stem|name)\}", "", pattern)
        if bare == pattern or "{" in bare or "}" in bare:
            raise ValueError("it needs {stem} or {name}, and no other braces, such as '{stem}_mask.png'")
        if ".." in pattern.split("/"):
            raise ValueError("a mask must lie below the folder of the masks; leave out ..")
        return pattern

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.channel == "rgb_id" and self.foreground is None:
            raise ValueError("foreground: channel rgb_id reads ids; say which are foreground, or nonzero")
        if self.channel == "alpha" and self.foreground is not None:
            raise ValueError("foreground: channel alpha has no ids; leave out one of the two")
        if self.void and self.foreground is None:
            raise ValueError("void: ids are read only with foreground; set it to ids, or to nonzero")
        if self.foreground == () or set(self.void) & set(self.foreground or ()):
            raise ValueError("foreground: name at least one id, and none that void names too")
        return self


def imported_first(masks: str | None, pattern: str) -> tuple[str, str] | None:
    """A setting of `data` that only `bgsweep masks import` can read, and what to do; None if there is none."""
    if masks is not None and masks.lower().endswith(".json"):
        return "masks", f"{masks} holds annotations: make masks of it by `bgsweep masks import`, and name their folder"
    if "*" in pattern:
        return "mask_format.pattern", "* stands for several files of an image, which `bgsweep masks import` unites"
    if pattern.lower().endswith(".json"):
        return "mask_format.pattern", "JSON files hold segments, of which `bgsweep masks import` makes masks"
    return None


def mask_source(images: str, masks: str | None, given: MaskFormat) -> tuple[str | None, MaskFormat]:
    """The folder of the masks and their format, where `masks` may stand for the images' own alpha channel."""
    return (images, MaskFormat(pattern="{name}", channel="alpha")) if masks == OWN_ALPHA else (masks, given)
