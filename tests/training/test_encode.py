"""Encoding for evaluations."""

import torch
from torch import Tensor, nn

from bgsweep.training.encode import encode_with


class Small(nn.Module):
    """A convolution, which remembers how many images came at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Conv2d(3, 5, 3), list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return torch.as_tensor(self.layer(images).mean(dim=(2, 3)))


def test_few_images_at_a_time_have_the_same_features_but_for_rounding() -> None:
    torch.manual_seed(0)
    network, device = Small(), torch.device("cpu")
    images = torch.randint(0, 256, (11, 8, 8, 3), dtype=torch.uint8)
    whole = encode_with(network, device)(images)  # type: ignore[arg-type]
    parts = encode_with(network, device, at_once=4 * 64)(images)  # type: ignore[arg-type]
    assert network.seen == [11, 4, 4, 3]
    torch.testing.assert_close(parts, whole)
    assert len(encode_with(network, device, at_once=1)(images)) == 11  # type: ignore[arg-type]
    assert encode_with(network, device, torch.bfloat16)(images).dtype == torch.float32  # type: ignore[arg-type]
