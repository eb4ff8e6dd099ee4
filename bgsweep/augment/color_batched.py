"""The photometric part of views as batched tensor code, for the device that trains.

It takes 30 % of the work off the loader's CPUs (1.6 instead of 2.3 ms a MoCo-v2 sample, benchmarks/RESULTS.md), which
are the bottleneck beside a fast GPU.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.augment.color import (
    CONTRAST,
    HUE,
    HUE_LEVELS,
    LUMA,
    NEUTRAL,
    SATURATION,
    Color,
    kernel_of,
)
from bgsweep.transfer import send

_GRAY, _SIGMA, _SOLARIZE = 8, 9, 10


def render(images: Tensor, rows: Tensor, color: Color) -> Tensor:
    """Apply the draws of each view of a batch to it, as `color.render` does to one.

    Args:
        images: uint8 (B, H, W, 3), on any device.
        rows: `ColorDraw.row` of each (B, 11), on the CPU: which views an operation applies to is decided there, so that
            the host never waits for the device.
        color: `exact` or `fast`, as in `Photometric`; values that the CPU rounds between operations are not rounded
            here.

    Returns:
        uint8 (B, H, W, 3), on the images' device.
    """
    pixels = images.flatten(1, 2).float()
    # Written by kernels: a copy from the host, for each view of each step, would make the host wait.
    luma = torch.stack([torch.full((), weight, device=images.device) for weight in LUMA.tolist()])
    pixels = _jittered(pixels, rows, luma, color)
    if color == "exact":  # else it has been part of the one matrix
        _replace(pixels, rows[:, _GRAY] > 0, lambda some, _: (some @ luma).unsqueeze(2).expand_as(some))
    # The CPU rounds to uint8 here too; without it, blurs of both would differ by more than rounding.
    views = pixels.view(images.shape).round_()
    _replace(views, rows[:, _SIGMA] > 0, lambda some, which: _blurred(some, rows[which, _SIGMA], color))
    views.round_()
    _replace(views, rows[:, _SOLARIZE] > 0, lambda some, _: torch.minimum(some, 255 - some))
    return views.to(torch.uint8)


def _jittered(pixels: Tensor, rows: Tensor, luma: Tensor, color: Color) -> Tensor:
    """Pixels (B, N, 3) in 0 to 255 after the four operations of each view, in its order."""
    operations = rows[:, :4].long()
    factors = rows[:, 4:8].gather(1, operations)
    changes = factors != rows.new_tensor(NEUTRAL)[operations]
    on_device = [send(tensor, pixels.device) for tensor in (operations, factors)]
    matrix = torch.eye(3, 4, device=pixels.device).expand(len(pixels), 3, 4)
    mean = _mean(pixels)
    for step in range(4):
        operation, factor = (tensor[:, step] for tensor in on_device)
        hued = changes[:, step] & (operations[:, step] == HUE)
        if color == "exact" and hued.any():
            _replace(pixels, hued, lambda some, which, step=step: _turned(some, factors[which, step]))  # type: ignore[misc]
        if color == "exact" and (changes[:, step] & ~hued).any():
            pixels = _mapped(pixels, _changed(matrix, operation, factor, _mean(pixels), luma))
        if color == "fast":
            matrix = _changed(matrix, operation, factor, mean, luma)
            matrix = torch.where((operation == HUE)[:, None, None], _rotations(factor) @ matrix, matrix)
    if color == "exact":
        return pixels
    grays = send(rows[:, _GRAY] > 0, pixels.device)[:, None, None]
    return _mapped(pixels, torch.where(grays, torch.einsum("c,bcd->bd", luma, matrix)[:, None], matrix))


def _replace(tensor: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Change the chosen rows (a mask on the CPU) in place; ``change`` gets them, and their numbers on the CPU."""
    which = chosen.nonzero().squeeze(1)
    if len(which):
        index = send(which, tensor.device)
        tensor[index] = change(tensor[index], which)


def _changed(matrix: Tensor, operation: Tensor, factor: Tensor, mean: Tensor, luma: Tensor) -> Tensor:
    """`color.extend` for each view (B, 3, 4), except for hue, which changes nothing here."""
    gray = torch.einsum("c,bcd->bd", luma, matrix)
    pivot = F.pad((gray * mean).sum(1, keepdim=True), (3, 0))
    saturates, contrasts, turns = (operation == number for number in (SATURATION, CONTRAST, HUE))
    other = gray * saturates[:, None] + pivot * contrasts[:, None]
    factor = torch.where(turns, 1.0, factor)[:, None, None]
    return factor * matrix + (1 - factor) * other[:, None]


def _mapped(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Pixels (B, N, 3) after each view's affine map (B, 3, 4), clipped."""
    return torch.baddbmm(matrix[:, None, :, 3], pixels, matrix[:, :, :3].mT).clamp_(0, 255)


def _mean(pixels: Tensor) -> Tensor:
    """Mean colours and a 1: (B, 4)."""
    return F.pad(pixels.mean(1), (0, 1), value=1.0)


def _turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """Pixels (B, N, 3) with their hue shifted in HSV, by as many levels as on the CPU.

    Each channel is value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + hue / 60°) mod 6 and n = 5, 3, 1: HSV to
    RGB without branches.
    """
    shift = send((turns * HUE_LEVELS).round() / HUE_LEVELS, pixels.device)
    red, green, blue = pixels.unbind(2)
    value = pixels.amax(2)
    chroma = value - pixels.amin(2)
    # Grey pixels have no hue; any finite one gives them back unchanged, since their chroma is 0.
    some = chroma.clamp_min(1e-6)
    sixths = torch.where(green == value, (blue - red) / some + 2, (red - green) / some + 4)
    sixths = torch.where(red == value, (green - blue) / some, sixths) + 6 * shift[:, None]
    near = [(sixths + number).remainder(6) for number in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in near], dim=2)


def _rotations(turns: Tensor) -> Tensor:
    """Rotations about the grey axis of RGB (B, 3, 3)."""
    angle = 2 * torch.pi * turns
    diagonal, side, skew = (1 + 2 * angle.cos()) / 3, (1 - angle.cos()) / 3, angle.sin() / 3**0.5
    first = torch.stack([diagonal, side - skew, side + skew], dim=1)
    return torch.stack([first.roll(shift, 1) for shift in range(3)], dim=1)


def _blurred(views: Tensor, sigmas: Tensor, color: Color) -> Tensor:
    """Views (B, H, W, 3), each under its own Gaussian, borders mirrored."""
    batch, height, width, _ = views.shape
    kernels = [torch.from_numpy(kernel_of(sigma, color)) for sigma in sigmas.tolist()]
    # Kernels are padded to the longest: a loop over views would launch a kernel for each of them.
    radius = max(len(kernel) for kernel in kernels) // 2
    # One grouped convolution for the whole batch: each channel of each view is a group with its own kernel.
    padded = torch.stack([F.pad(kernel, (radius - len(kernel) // 2,) * 2) for kernel in kernels])
    weights = send(padded.repeat_interleave(3, 0)[:, None], views.device)
    planes = views.permute(0, 3, 1, 2).reshape(1, 3 * batch, height, width)
    for pad, shape in (((radius, radius, 0, 0), (1, -1)), ((0, 0, radius, radius), (-1, 1))):
        kernel = weights.view(3 * batch, 1, *shape)
        planes = F.conv2d(F.pad(planes, pad, mode="reflect"), kernel, groups=3 * batch)
    return planes.view(batch, 3, height, width).permute(0, 2, 3, 1)
