"""Encoders in ONNX files: of our own export and of others, of fixed and of free sizes, and what cannot be one."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bgsweep.errors import UserError
from bgsweep.evaluation.kept import network_digest
from bgsweep.models.onnx_encoder import load_onnx
from bgsweep.tracking.encoders import load_model

onnx = pytest.importorskip("onnx")


def write(path: Path, outputs: int, batch: int | str = "n", side: int | str = "s", channels: int = 3) -> None:
    """Mean colours through a linear layer."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(outputs).normal(size=(channels, outputs)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["features"]),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, channels, side, side])
    end = helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, outputs])
    graph = helper.make_graph(nodes, "g", [entry], [end], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))


def expected(images: torch.Tensor, outputs: int) -> torch.Tensor:
    weight = torch.from_numpy(np.random.default_rng(outputs).normal(size=(3, outputs)).astype(np.float32))
    return images.mean(dim=(2, 3)) @ weight


def test_images_are_normalized_unless_the_network_does_it(tmp_path: Path) -> None:
    write(tmp_path / "e.onnx", 5)
    images = torch.rand(3, 3, 20, 20)
    unit = load_model(f"onnx-unit:{tmp_path / 'e.onnx'}", 224, tmp_path)
    torch.testing.assert_close(unit.encoder(images), expected(images, 5))
    loaded = load_model(f"onnx:{tmp_path / 'e.onnx'}", 224, tmp_path)
    normalized = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(loaded.encoder(images), expected(normalized, 5))
    assert "normalized as ImageNet" in loaded.origin["weights"] and loaded.head is None and loaded.size is None
    model = onnx.load(tmp_path / "e.onnx")
    onnx.helper.set_model_props(model, {"preprocessing": '{"normalized_by_the_network": true}'})  # as bgsweep's exports
    onnx.save(model, tmp_path / "e.onnx")
    assert "in [0, 1]" in load_onnx(tmp_path / "e.onnx")[2]


def test_fixed_batches_and_sizes(tmp_path: Path) -> None:
    write(tmp_path / "e.onnx", 5, batch=4, side=16)
    encoder, _, _, side = load_onnx(tmp_path / "e.onnx", unit=True)
    images = torch.rand(6, 3, 16, 16)
    torch.testing.assert_close(encoder(images), expected(images, 5))
    assert side == 16
    with pytest.raises(UserError, match="takes images of 16 px, not 32; set size"):
        encoder(torch.rand(1, 3, 32, 32))


def test_a_thousand_outputs_are_imagenets_classes(tmp_path: Path) -> None:
    write(tmp_path / "c.onnx", 1000)
    encoder, head, words, _ = load_onnx(tmp_path / "c.onnx", unit=True)
    images = torch.rand(2, 3, 8, 8)
    assert head is not None and torch.equal(head(encoder(images)), encoder(images)) and "1000 outputs" in words


def test_copies_and_digests_are_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.onnx", 5)
    write(tmp_path / "b.onnx", 6)
    a, b = (load_onnx(tmp_path / name, unit=True)[0] for name in ("a.onnx", "b.onnx"))
    images = torch.rand(2, 3, 8, 8)
    for each in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        torch.testing.assert_close(each(images), a(images))
        assert network_digest(each) == network_digest(a)
    digests = [a.state_dict()["backbone.digest"], b.state_dict()["backbone.digest"]]
    assert not torch.equal(*digests)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    write(tmp_path / "gray.onnx", 5, channels=1)
    for name, words in {"none": "no such file", "bad": "not a network that ONNX", "gray": "not images N x 3"}.items():
        with pytest.raises(UserError, match=words):
            load_model(f"onnx:{tmp_path / name}.onnx", 224, tmp_path)
