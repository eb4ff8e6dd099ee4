"""Augmented views of an image, made from its pixels and its foreground mask."""

import sys


def import_albumentations_without_torch() -> None:
    """Import Albumentations in a process that does not need torch: of it only `ToTensorV2` does, whose import takes two
    seconds and half a gigabyte."""
    if "torch" in sys.modules or "albumentations" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import albumentations  # noqa: F401
    finally:
        del sys.modules["torch"]
