from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from bgsweep.errors import UserError
from bgsweep.images.compositing import solid
from bgsweep.images.decoding import decode_image, decode_mask
from bgsweep.masks.u2net import U2Net, Usps
from tests.masks.onnx_network import one_channel

onnxruntime = pytest.importorskip("onnxruntime")


def _masks(network: U2Net, images: list[np.ndarray]) -> list[np.ndarray]:
    return list(network.masks([network.prepare(image) for image in images]))


@pytest.fixture
def images() -> list[np.ndarray]:
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, (*draws.integers(5, 90, 2), 3)).astype(np.uint8) for _ in range(21)]


def test_mask_is_the_stretched_map_at_the_images_size() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:20, 4:30] = (10, 200, 30)
    (mask,) = _masks(U2Net(one_channel()), [image])
    np.testing.assert_array_equal(mask, np.where(image[:, :, 1] == 200, 255, 0))


def test_a_free_batch_dimension_gives_the_same_masks_as_one_by_one(images: list[np.ndarray]) -> None:
    together, alone = _masks(U2Net(one_channel("n")), images), _masks(U2Net(one_channel(1)), images)
    assert [mask.shape for mask in together] == [image.shape[:2] for image in images]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_the_network_sees_nothing_no_object_is_made_up() -> None:
    red = solid(32, 32, (255, 0, 0))
    red[8:20, 4:30, 1] = 20
    (mask,) = _masks(U2Net(one_channel(which="ReduceMin")), [red])  # probabilities of 0.12 and 0.14
    assert np.ptp(mask) > 0, "the network makes no difference, so the test shows nothing"
    assert mask.max() < 50


def test_a_students_map_takes_the_edges_of_a_larger_image() -> None:
    """The network sees 32 pixels a side, and the mask has edges of 256 pixels."""
    image, noise = solid(256, 256, (30, 30, 30)), np.random.default_rng(0).integers(0, 20, (256, 256, 3))
    image[70:190, 50:210] = (220, 200, 30)
    image += noise.astype(np.uint8)
    true = np.zeros((256, 256), bool)
    true[70:190, 50:210] = True
    plain, cut = (_masks(network, [image])[0] > 127 for network in (U2Net(one_channel()), Usps(one_channel())))
    assert (cut != true).mean() < 0.003 < (plain != true).mean()


def test_where_a_student_sees_nothing_no_object_is_made_up() -> None:
    (mask,) = _masks(Usps(one_channel(which="ReduceMin")), [solid(32, 32, (255, 0, 0))])
    assert mask.max() < 50


def test_of_a_black_image_there_is_no_foreground() -> None:
    (mask,) = _masks(U2Net(one_channel()), [solid(20, 30, (0, 0, 0))])
    assert mask.max() < 127


@pytest.mark.parametrize(
    ("weights", "told"),
    [(b"", "not a network"), (b"no ONNX", "not a network"), (one_channel(channels=1), r"takes \[1, 1, 32, 32\]")],
    ids=["empty", "damaged", "one channel"],
)
def test_other_files_are_refused(weights: bytes, told: str) -> None:
    with pytest.raises(UserError, match=f"--weights: .*{told}"):
        U2Net(weights)


def test_u2net_p_as_its_authors_run_it(shared_data: Path) -> None:
    """Against a plain rendering of their recipe with Pillow, and against masks made from larger images."""
    weights = (shared_data / "saliency_model/u2netp.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network, session = U2Net(weights), onnxruntime.InferenceSession(weights, options)
    root = shared_data / "clothing10"
    overlaps = []
    for path in sorted((root / "images/test/shoes").iterdir())[:2]:
        image, size = decode_image(path.read_bytes(), str(path))
        (mask,) = _masks(network, [image])
        pixels = np.asarray(PIL.Image.fromarray(image).resize((320, 320), PIL.Image.Resampling.BILINEAR)) / image.max()
        entry = ((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None]
        found = session.run(["1959"], {"input.1": entry.astype(np.float32)})[0][0, 0]
        plain = PIL.Image.fromarray(255 * (found - found.min()) / np.ptp(found)).resize(size[::-1])
        assert np.abs(mask - np.asarray(plain)).mean() < 3
        name = path.relative_to(root / "images").with_suffix(".png")
        given = decode_mask((root / "masks" / name).read_bytes(), name.name, size, path.name)
        overlaps.append(((mask > 127) & (given > 127)).sum() / ((mask > 127) | (given > 127)).sum())
    assert np.mean(overlaps) > 0.9
