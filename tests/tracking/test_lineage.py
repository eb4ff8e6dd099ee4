"""An encoder's values, as MLflow has them."""

from types import SimpleNamespace

from bgsweep.tracking.lineage import _of_model


def test_values_are_of_their_images_whatever_masks_these_had() -> None:
    """Earlier versions logged the digest of the images alone."""
    images = {"test": {"name": "photos/test", "digest": "ab12", "count": 200}}
    measured = (("test/knn/top1", 0.5, "ab12"), ("test/knn/top1", 0.6, "ab12-cd34"), ("test/linear/bg_gap", 0.1, None))
    logged = SimpleNamespace(
        metrics=[
            SimpleNamespace(key=key, value=value, dataset_digest=digest, timestamp=at)
            for at, (key, value, digest) in enumerate(measured)
        ]
    )
    assert _of_model(logged, images) == [
        {"name": "test/knn/top1", "value": 0.6, "count": 200},
        {"name": "test/linear/bg_gap", "value": 0.1},
    ]
