"""How is a gradient made like noise? So that what it replaces keeps its law.

    scale       g / rms(g): its size alone is that of noise
    spectrum    its Fourier coefficients are scaled band by band, a channel at a time, so that each
                band has the mean square of white noise

A band is an octave of the highest relative frequency over the axes, its upper end included; the
mean is one of its own. A band in which the gradient has nothing stays empty.

Source: the white-noise projection of arXiv:2602.08646 (blockwise norms of the spectrum); the
octaves are ours.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["WHITENINGS", "bands", "like_rows", "root_mean_square", "white"]

WHITENINGS = {
    "scale": "size alone",
    "spectrum": "size in every octave of its spectrum, so that it has the grain of noise",
}


def root_mean_square(rows: Tensor) -> Tensor:
    """Return each row's root mean square, shape (B,)."""
    return rows.flatten(1).square().mean(1).sqrt()


def like_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return one value a row, shaped to multiply rows."""
    return values.view(-1, *[1] * (rows.ndim - 1))


def white(gradient: Tensor, whitening: str) -> Tensor:
    """Scale each row to a root mean square of 1, as its whitening says.

    Args:
        gradient: Shape (B, C, *S) or (B, C), finite.
        whitening: Key of WHITENINGS.

    Returns:
        The same shape, float32 or float64; rows of zeros stay zeros.

    Example:
        >>> white(torch.tensor([[3.0, -3.0], [0.0, 0.0]]), "scale")
        tensor([[ 1., -1.],
                [ 0.,  0.]])
    """
    g = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    g = _scaled(g)
    if whitening == "spectrum":
        g = _scaled(_flattened(g))
    return g


def _scaled(g: Tensor) -> Tensor:
    # by the largest first: squares of tiny gradients are 0
    largest = g.flatten(1).abs().amax(1)
    g = g / like_rows(torch.where(largest > 0.0, largest, torch.ones_like(largest)), g)
    size = root_mean_square(g)
    return g / like_rows(torch.where(size > 0.0, size, torch.ones_like(size)), g)


def _flattened(g: Tensor) -> Tensor:
    """Give every band of every channel the mean square of white noise; an empty one stays empty."""
    axes = tuple(range(2, g.ndim)) if g.ndim > 2 else (1,)
    shape = tuple(g.shape[axis] for axis in axes)
    of = bands(shape).to(g.device).flatten()
    fft: Any = torch.fft  # which does not say what it returns
    waves: Tensor = fft.fftn(g, dim=axes, norm="ortho")
    flat = waves.reshape(-1, of.numel())
    power = flat.real.square() + flat.imag.square()
    count = int(of.max()) + 1
    sums = power.new_zeros(len(flat), count).index_add_(1, of, power)
    sizes = torch.bincount(of, minlength=count).to(power)
    floor = 1e-12 * power.sum(1, keepdim=True)  # what rounding leaves is no direction
    gain = torch.where(sums > floor, (sizes / sums.clamp(min=1e-38)).sqrt(), torch.zeros_like(sums))
    white_waves = (flat * gain[:, of]).view_as(waves)
    back: Tensor = fft.ifftn(white_waves, dim=axes, norm="ortho")
    return back.real


@lru_cache(maxsize=64)
def bands(shape: tuple[int, ...]) -> Tensor:
    """Number the bands of a spectrum: 0 for the mean, then octaves.

    Args:
        shape: Sizes of the axes.

    Returns:
        int64, that shape, in the order of torch.fft.fftn.
    """
    highest = torch.zeros(shape, dtype=torch.float64)
    for axis, size in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = size
        places = torch.arange(size, dtype=torch.float64)
        relative = torch.minimum(places, size - places).view(view) / size
        highest = torch.maximum(highest, relative.expand(shape))
    return (highest * max(shape)).clamp(min=0.5).log2().ceil().long() + 1
