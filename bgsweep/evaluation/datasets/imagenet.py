"""ImageNet's 1000 classes by their WordNet ids."""

from functools import cache
from pathlib import Path


@cache
def wnids() -> tuple[str, ...]:
    """The ids in the order of the labels 0 to 999, which is that of the ids themselves."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


@cache
def label_of() -> dict[str, int]:
    """Labels by WordNet id."""
    return {wnid: label for label, wnid in enumerate(wnids())}
