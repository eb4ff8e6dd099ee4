"""Published mask networks: their input, their output, their license and where their files are."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

NON_COMMERCIAL = "not for commercial use"
"""Part of the licenses of networks to which this applies."""

Triple = tuple[float, float, float]

_IMAGENET: tuple[Triple, Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CENTRED: tuple[Triple, Triple] = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
_UNCHANGED: tuple[Triple, Triple] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Interface:
    """An image's way into a network, and a mask's way out.

    Attributes:
        network: name of the network; None for one that is not known.
        side: height and width of the input in pixels; None: as the file says.
        scale: pixels are divided by the image's `maximum`, or by `255`.
        mean, std: then subtracted, and divided by.
        activation: turns the output into probabilities; None: it consists of probabilities.
        channels: of the output.
        foreground: those of them whose sum is the mask.
        stretched_from: each map is scaled to 0..1, as the networks' authors do, unless its maximum is below this: then
            no object was found, and scaling would invent one (images in which U2-Net-P finds nothing have maxima below
            0.07; scaled, their masks have an IoU below 0.08). None: never.
        license: of the weights.
        file: where the ONNX file is published.
    """

    network: str | None
    side: int | None = 320
    scale: Literal["maximum", "255"] = "maximum"
    mean: Triple = _IMAGENET[0]
    std: Triple = _IMAGENET[1]
    activation: Literal["sigmoid", "softmax"] | None = None
    channels: int = 1
    foreground: tuple[int, ...] = (0,)
    stretched_from: float | None = 0.5
    license: str = "Apache-2.0"
    file: str = ""

    def record(self) -> dict[str, Any]:
        """The settings that determine the masks besides the input's size, as JSON returns it."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("side", "license", "file")}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


UNKNOWN = Interface(None, side=None, license="")
"""A file of the user: U2-Net's interface, at the file's own size."""

_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"


def _birefnet(name: str, file: str) -> Interface:
    # Its authors apply a sigmoid, and do not stretch.
    return Interface(
        name,
        1024,
        "255",
        activation="sigmoid",
        stretched_from=None,
        license="MIT",
        file=f"{_RELEASE}/BiRefNet-{file}.onnx",
    )


_KNOWN = (
    Interface("u2netp", file=f"{_RELEASE}/u2netp.onnx"),
    Interface("u2net", file=f"{_RELEASE}/u2net.onnx"),
    Interface("u2net_human_seg", file=f"{_RELEASE}/u2net_human_seg.onnx"),
    # Background, upper body, lower body and full-body garments.
    Interface(
        "u2net_cloth_seg",
        768,
        activation="softmax",
        channels=4,
        foreground=(1, 2, 3),
        stretched_from=None,
        license="not stated",
        file=f"{_RELEASE}/u2net_cloth_seg.onnx",
    ),
    Interface("silueta", license="not stated", file=f"{_RELEASE}/silueta.onnx"),
    Interface("isnet-general-use", 1024, "255", *_CENTRED, file=f"{_RELEASE}/isnet-general-use.onnx"),
    _birefnet("birefnet-general", "general-epoch_244"),
    _birefnet("birefnet-general-lite", "general-bb_swin_v1_tiny-epoch_232"),
    _birefnet("birefnet-portrait", "portrait-epoch_150"),
    Interface(
        "ben2",
        1024,
        "255",
        *_UNCHANGED,
        license="MIT",
        file="BEN2_Base.onnx of PramaLLC/BEN2 on Hugging Face",
    ),
    Interface(
        "bria-rmbg-1.4",
        1024,
        "255",
        *_CENTRED,
        license=f"of BRIA AI, {NON_COMMERCIAL}",
        file="onnx/model.onnx of briaai/RMBG-1.4 on Hugging Face",
    ),
    Interface(
        "bria-rmbg-2.0",
        1024,
        "255",
        stretched_from=None,
        license=f"CC BY-NC 4.0, {NON_COMMERCIAL}",
        file=f"{_RELEASE}/bria-rmbg-2.0.onnx",
    ),
)
NETWORKS = {str(interface.network): interface for interface in _KNOWN}
"""Interfaces by the names of `bgsweep masks make --network`."""
