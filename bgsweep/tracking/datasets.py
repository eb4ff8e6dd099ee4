"""Image sets as MLflow knows them: one is another's if it has the same name and digest."""

from collections.abc import Mapping

_BETWEEN = "-"


def dataset_digest(digests: Mapping[str, str]) -> str:
    """The digest of a set with these `ImageDataset.digests`: ``IMAGES``, or ``IMAGES-MASKS`` where there are masks.

    MLflow has one row for a name and a digest, so that sets that share their images, but not their masks, need two.
    """
    return _BETWEEN.join(digests[part] for part in ("images", "masks") if part in digests)  # at most 36 characters


def digest_of_images(digest: str) -> str:
    """The part of a `dataset_digest` that is of the images; earlier versions logged nothing else."""
    return digest.partition(_BETWEEN)[0]
