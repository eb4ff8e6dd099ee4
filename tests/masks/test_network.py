import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from bgsweep.errors import UserError
from bgsweep.images.compositing import solid
from bgsweep.images.decoding import decode_image, decode_mask
from bgsweep.masks.interfaces import NETWORKS, UNKNOWN
from bgsweep.masks.network import MaskNetwork, Usps, network_input
from tests.masks.onnx_network import FLOAT16, four_channels, one_channel

onnxruntime = pytest.importorskip("onnxruntime")


def _masks(network: MaskNetwork, images: list[np.ndarray]) -> list[np.ndarray]:
    return list(network.masks([network.prepare(image) for image in images]))


@pytest.fixture
def images() -> list[np.ndarray]:
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, (*draws.integers(5, 90, 2), 3)).astype(np.uint8) for _ in range(21)]


def test_mask_is_the_stretched_map_at_the_images_size() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:20, 4:30] = (10, 200, 30)
    (mask,) = _masks(MaskNetwork(one_channel()), [image])
    np.testing.assert_array_equal(mask, np.where(image[:, :, 1] == 200, 255, 0))


def test_a_free_batch_dimension_gives_the_same_masks_as_one_by_one(images: list[np.ndarray]) -> None:
    together, alone = _masks(MaskNetwork(one_channel("n")), images), _masks(MaskNetwork(one_channel(1)), images)
    assert [mask.shape for mask in together] == [image.shape[:2] for image in images]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_the_network_sees_nothing_no_object_is_made_up() -> None:
    red = solid(32, 32, (255, 0, 0))
    red[8:20, 4:30, 1] = 20
    (mask,) = _masks(MaskNetwork(one_channel(which="ReduceMin")), [red])  # probabilities of 0.12 and 0.14
    assert np.ptp(mask) > 0, "the network makes no difference, so the test shows nothing"
    assert mask.max() < 50


def test_a_students_map_takes_the_edges_of_a_larger_image() -> None:
    """The network sees 32 pixels a side, and the mask has edges of 256 pixels."""
    image, noise = solid(256, 256, (30, 30, 30)), np.random.default_rng(0).integers(0, 20, (256, 256, 3))
    image[70:190, 50:210] = (220, 200, 30)
    image += noise.astype(np.uint8)
    true = np.zeros((256, 256), bool)
    true[70:190, 50:210] = True
    plain, cut = (_masks(network, [image])[0] > 127 for network in (MaskNetwork(one_channel()), Usps(one_channel())))
    assert (cut != true).mean() < 0.003 < (plain != true).mean()


def test_where_a_student_sees_nothing_no_object_is_made_up() -> None:
    (mask,) = _masks(Usps(one_channel(which="ReduceMin")), [solid(32, 32, (255, 0, 0))])
    assert mask.max() < 50


def test_of_a_black_image_there_is_no_foreground() -> None:
    (mask,) = _masks(MaskNetwork(one_channel()), [solid(20, 30, (0, 0, 0))])
    assert mask.max() < 127


def _shaded() -> np.ndarray:
    """An image of all levels, with a bright rectangle."""
    image = np.tile(np.linspace(0, 120, 32).astype(np.uint8)[:, None, None], (1, 32, 3))
    image[8:20, 4:30] = (10, 255, 30)
    return image


@pytest.mark.parametrize(
    ("weights", "known", "told"),
    [
        (b"", None, "not a network"),
        (b"no ONNX", None, "not a network"),
        (one_channel(channels=1), None, r"takes \[1, 1, 32, 32\]"),
        (four_channels(), None, "output has 4 channels, not 1; name the network by --network"),
        (
            one_channel(last="Identity"),
            None,
            r"output lies between -\d.* and \d.*, not between 0 and 1; name the network",
        ),
        (one_channel(side=1024, last="Identity"), "isnet-general-use", "not between 0 and 1; name the network"),
        (one_channel(side=1024), "birefnet-general", "lies between 0 and 1, unlike that of birefnet-general"),
        (four_channels(1024), "birefnet-general", "4 channels, not 1"),
        (one_channel(side=768), "u2net_cloth_seg", "1 channels, not 4"),
        (one_channel(side=320), "ben2", "320x320 pixels, but ben2 takes 1024x1024; name another --network"),
    ],
    ids=[
        "empty",
        "damaged",
        "gray_input",
        "four_channels",
        "logits",
        "known_logits",
        "no_logits",
        "known_four",
        "known_one",
        "size",
    ],
)
def test_files_of_another_interface_are_refused_in_one_line(weights: bytes, known: str | None, told: str) -> None:
    with pytest.raises(UserError, match=f"--weights: .*{told}") as error:
        MaskNetwork(weights, NETWORKS[known] if known else UNKNOWN).check(_shaded())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, known in NETWORKS.items() if known.channels == 1])
def test_each_known_networks_interface(name: str) -> None:
    """A small network of the same interface finds the rectangle."""
    known = NETWORKS[name]
    network = MaskNetwork(one_channel("n", side="side", last="Identity" if known.activation else "Sigmoid"), known)
    network.check(_shaded())
    (mask,) = _masks(network, [_shaded()])
    assert network.parameters["network"] == name and network.parameters["input"] == [known.side] * 2
    assert mask[14, 17] > 127
    assert mask[14, 17] > mask[25, 17] > mask[2, 17]
    assert (int(mask.max()) - mask.min() == 255) == (known.stretched_from is not None)


def test_inputs_are_scaled_as_each_networks_authors_do() -> None:
    image = solid(4, 4, (51, 102, 204))  # its maximum is 0.8 of 255
    expected = {
        "u2net": ((0.25 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (1 - 0.406) / 0.225),
        "isnet-general-use": (-0.3, -0.1, 0.3),
        "birefnet-general": ((0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225),
        "ben2": (0.2, 0.4, 0.8),
        "bria-rmbg-1.4": (-0.3, -0.1, 0.3),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(network_input(image, (2, 2), NETWORKS[name])[:, 1, 1], values, atol=1e-6)


def test_garments_are_what_is_no_background() -> None:
    """Softmax of four logits; the sum of the three garments is the mask."""
    image = solid(768, 768, (30, 40, 60))
    network = MaskNetwork(four_channels(768), NETWORKS["u2net_cloth_seg"])
    (mask,) = _masks(network, [image])
    red, green, blue = network_input(image, (768, 768), NETWORKS["u2net_cloth_seg"])[:, 0, 0]
    share = 1 - np.exp(blue) / np.exp([blue, red, green, blue]).sum()
    assert abs(int(mask[5, 5]) - 255 * share) <= 1


def test_a_gpu_that_onnx_runtime_cannot_use_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with warnings.catch_warnings(action="ignore"):  # ONNX Runtime's own, which differs between versions
        MaskNetwork(one_channel())
    assert "runs on the CPU" in caplog.text


def test_networks_of_half_precision_give_the_same_masks() -> None:
    (whole,), (half,) = (_masks(MaskNetwork(one_channel(kind=kind)), [_shaded()]) for kind in (1, FLOAT16))
    assert np.abs(whole.astype(int) - half).max() <= 1


def test_large_images_are_averaged_on_their_way_in() -> None:
    """Lines of which linear interpolation sees only some."""
    image = np.zeros((320 * 8, 320 * 8, 3), np.uint8)
    image[:, ::8] = 255
    pixels = network_input(image, (320, 320), NETWORKS["isnet-general-use"])
    np.testing.assert_allclose(pixels, pixels.mean(), atol=0.01)


def test_u2net_p_as_its_authors_run_it(shared_data: Path) -> None:
    """Against a plain rendering of their recipe with Pillow, and against masks made from larger images."""
    weights = (shared_data / "saliency_model/u2netp.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network, session = MaskNetwork(weights, NETWORKS["u2netp"]), onnxruntime.InferenceSession(weights, options)
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
