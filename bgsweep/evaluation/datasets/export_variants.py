"""Background variants of any labelled set with masks, written in the layout of ImageNet-9's release."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgsweep.config.evaluation import VARIANTS
from bgsweep.data import UNLABELLED, Image
from bgsweep.errors import UserError, one_line
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.evaluators.imagenet9 import MASKS, RELEASED
from bgsweep.storage.atomic import replacing_folder

MANIFEST = "backgrounds.json"


def write_release(
    variants: VariantSet, out: Path, sheet: Image, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Write ``VARIANT/val/NN_CLASS/*.JPEG``, ``fg_mask/val/NN_CLASS/*.npy`` (1 on the foreground) and a manifest.

    Images of the mixed variants are named ``fg_STEM_bg_NN_STEM``: the background's class is the second number. The
    manifest says for each image which background it has. All of it appears at once, when it is complete.

    Args:
        sheet: an image of the variants side by side, written beside them.

    Returns:
        The manifest without its list of backgrounds, and where all of it is.

    Raises:
        UserError: images without classes, or an `out` that already holds something.
    """
    source = variants.source
    if UNLABELLED in source.labels:
        raise UserError(f"{source.name}: put the images into class folders; the layout has one for each class")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there; name a new folder, or remove it")
    try:
        with replacing_folder(out.absolute()) as folder:
            folder.mkdir(parents=True)
            behind: dict[str, str] = {}
            for name in (name for name in VARIANTS if name in RELEASED):
                say(name)
                behind |= _write_variant(variants, name, folder)
            _write_masks(variants, folder)
            cv2.imwrite(str(folder / "variants.png"), sheet[..., ::-1])
            manifest = _manifest(variants)
            text = json.dumps(manifest | {"backgrounds": behind}, indent=1) + "\n"
            (folder / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error
    return manifest | {"out": str(out)}


def _write_variant(variants: VariantSet, name: Any, root: Path) -> dict[str, str]:
    """Write one variant; give the background's image for each image of a mixed one."""
    behind = {}
    source, pools = variants.source, variants.pools
    for index in variants.usable:
        stem = _stem(source.ids[index])
        if name.startswith("mixed"):
            donor = int(pools.origins[variants.donor(name, index, 0)])
            stem = f"fg_{stem}_bg_{source.labels[donor]:02d}_{_stem(source.ids[donor])}"
        path = Path(name, "val", _folder(variants, index), f"{stem}.JPEG")
        if name.startswith("mixed"):
            behind[path.as_posix()] = source.ids[donor]
        write_jpeg(root / path, variants.image(name, index))
    return behind


def _write_masks(variants: VariantSet, root: Path) -> None:
    for index in variants.usable:
        path = root / MASKS / "val" / _folder(variants, index) / f"{_stem(variants.source.ids[index])}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (variants.shape(index) > 127).astype(np.uint8))


def write_jpeg(path: Path, image: Image) -> None:
    """Write an image with its colors at full resolution; raises UserError where one of this name is there."""
    if path.exists():
        raise UserError(f"{path.name}: two images of one class would have this name; rename one of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Colours at full resolution: at half of it the foreground's would spread over its edge.
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes())


def _manifest(variants: VariantSet) -> dict[str, Any]:
    source = variants.source
    return {
        "source": source.name,
        "digests": source.digests(),
        "classes": list(source.classes),
        "size": variants.size,
        "seed": variants.settings.seed,
        "images_per_variant": len(variants.usable),
        "left_out": variants.left_out,
    }


def _folder(variants: VariantSet, index: int) -> str:
    label = int(variants.source.labels[index])
    return f"{label:02d}_{variants.source.classes[label]}"


def _stem(name: str) -> str:
    """The path below the class folder as one name, without its ending."""
    return name.partition("/")[2].replace("/", "_").rpartition(".")[0]
