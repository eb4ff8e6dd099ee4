from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.errors import UserError
from bgsweep.masks import u2netp
from bgsweep.masks.interfaces import NETWORKS
from bgsweep.masks.network import network_input
from bgsweep.masks.u2netp import U2NetP, shipped_weights


@pytest.fixture(scope="module")
def network() -> U2NetP:
    return U2NetP(shipped_weights(), "cpu")


def test_equals_the_graph_of_its_file(network: U2NetP) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    image = network_input(EmbeddedSample("test")[0].image, network.size, NETWORKS["u2netp"])[None]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (found,) = onnxruntime.InferenceSession(shipped_weights(), options).run(["1959"], {"input.1": image})
    assert found.max() > 0.9
    np.testing.assert_allclose(network(image), found, atol=1e-4)


def test_finds_a_garment(network: U2NetP) -> None:
    sample = EmbeddedSample("test")[0]
    assert sample.mask is not None
    found = network(network_input(sample.image, network.size, NETWORKS["u2netp"])[None])[0, 0]
    mask = cv2.resize(found, sample.mask.shape[::-1]) > 0.5
    true = sample.mask > 127
    assert (mask & true).sum() > 0.8 * (mask | true).sum()


@pytest.mark.parametrize("content", [b"", None, shipped_weights()[:-1] + b"x"], ids=["empty", "missing", "one byte"])
def test_a_damaged_file_is_named(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "u2netp.onnx"
    if content is not None:
        damaged.write_bytes(content)
    monkeypatch.setattr(u2netp, "WEIGHTS", damaged)
    with pytest.raises(UserError, match=r"u2netp\.onnx: (damaged|No such file).*; install bgsweep again"):
        shipped_weights()


def test_credits_stand_beside_the_weights() -> None:
    folder = u2netp.WEIGHTS.parent
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert u2netp.SHA256 in (folder / "README.md").read_text(encoding="utf-8")
