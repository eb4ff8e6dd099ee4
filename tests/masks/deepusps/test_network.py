import numpy as np
import pytest
import torch

from bgsweep.config import Encoder
from bgsweep.errors import UserError
from bgsweep.masks.deepusps.network import SaliencyNetwork, onnx_bytes, saliency_loss
from bgsweep.models import build_encoder


def _network(stem: str = "imagenet") -> SaliencyNetwork:
    torch.manual_seed(0)
    config = Encoder.model_validate({"name": "resnet10", "width": 8, "stem": stem})
    return SaliencyNetwork(build_encoder(config, [32]).backbone)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [(32, 32), (50, 41)])
def test_a_map_of_the_images_size(stem: str, size: tuple[int, int]) -> None:
    assert _network(stem)(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_every_weight_but_the_classifier_learns() -> None:
    network = _network()
    saliency_loss(network(torch.rand(4, 3, 32, 32)), torch.ones(4, 1, 32, 32)).backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_loss_is_one_minus_f_and_the_entropy_of_the_pixels() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 5, 7, generator=draws)
    targets = (torch.rand(3, 1, 5, 7, generator=draws) > 0.5).float()
    slow = []
    for logit, target in zip(logits, targets, strict=True):
        predicted = logit.sigmoid()
        hits = (predicted * target).sum().item()
        precision, recall = hits / predicted.sum().item(), hits / target.sum().item()
        entropy = -(target * predicted.log() + (1 - target) * (1 - predicted).log()).mean().item()
        slow.append(1 - 2 * precision * recall / (precision + recall) + entropy)
    assert saliency_loss(logits, targets).item() == pytest.approx(np.mean(slow), abs=1e-5)


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="a VGG cannot learn masks; name a ResNet"):
        SaliencyNetwork(build_encoder(Encoder(name="vgg11"), [32]).backbone)


def test_onnx_says_what_torch_says() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = _network().eval()
    session = onnxruntime.InferenceSession(onnx_bytes(network, 32))
    for count in (1, 3):
        pictures = torch.rand(count, 3, 32, 32)
        (found,) = session.run(None, {session.get_inputs()[0].name: pictures.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(pictures).sigmoid().numpy(), atol=1e-4)
