"""`bgsweep.load`: an encoder as a torch module with its preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from bgsweep.images.decoding import centre_view, decode_image
from bgsweep.images.files import read_file
from bgsweep.tracking.encoders import Loaded, load_model

_SIZE = 224  # of encoders whose training bgsweep does not know


class LoadedEncoder(nn.Module):
    """An encoder in eval mode, without gradients until `requires_grad_` asks for them.

    ``encoder(images)`` takes float images (N, 3, H, W) in [0, 1], which it normalises itself, and gives features
    (N, `feature_dim`).

    Attributes:
        feature_dim: the number of features.
        size: side in pixels of what `preprocess` gives.
        origin: which network and weights it is.
    """

    def __init__(self, loaded: Loaded, size: int) -> None:
        super().__init__()
        self.encoder = loaded.encoder
        self.feature_dim, self.size, self.origin = loaded.encoder.feature_dim, size, dict[str, Any](loaded.origin)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        return features

    def preprocess(self, image: "str | Path | PIL.Image.Image | np.ndarray[Any, Any]") -> Tensor:
        """One image as evaluations see it, (3, size, size) in [0, 1]: its shorter side at 8/7 of the size, cropped.

        Args:
            image: a file, a PIL image, or an RGB array (H, W, 3) of uint8.

        Raises:
            UnreadableImage: the file is missing or no image.
        """
        if isinstance(image, str | Path):
            pixels, _ = decode_image(read_file(image), str(image))
        else:
            pixels = np.asarray(image.convert("RGB") if isinstance(image, PIL.Image.Image) else image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"an RGB image of uint8 (H, W, 3) is needed, not {pixels.dtype} {pixels.shape}")
        square = np.ascontiguousarray(centre_view(pixels, self.size))
        return torch.from_numpy(square).permute(2, 0, 1).float().div_(255)


def load_encoder(model: str, size: int | None, store: Path) -> LoadedEncoder:
    """Load an encoder by name; see `bgsweep.api.load`."""
    loaded = load_model(model, size or _SIZE, store)
    return LoadedEncoder(loaded, size or loaded.size or _SIZE).eval()
