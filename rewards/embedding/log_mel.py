"""What CLAP reads of a sound: its spectrum in bands, in decibels, as a function that has a slope.

    y = 10 log10 max(1e-10, M |F(w x)|^2)      frames of x under a Hann window w, M the filters

The arithmetic of transformers' ClapFeatureExtractor, in float64 as there (a quiet band beside a
loud one is lost in float32), for sounds of at most one window. A band below the floor has no slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..weights.pretrained import Foreign

__all__ = ["LogMel", "log_mel"]

FLOOR = 1e-10
"""Power that counts as silence, -100 dB."""

PADDINGS = ("repeatpad", "repeat", "pad")


@dataclass(frozen=True, eq=False)
class LogMel:
    """The function.

    Attributes:
        filters: Shape (frequencies, bands), float64.
        width: Samples of a frame.
        hop: Samples from a frame to the next.
        longest: Samples of a whole window, to which shorter ones are made.
        padding: How: one of PADDINGS; what is left is silence.
        copies: How often the network with feature fusion is shown the same.
    """

    filters: Tensor
    width: int
    hop: int
    longest: int
    padding: str = PADDINGS[0]
    copies: int = 1

    def __call__(self, windows: Tensor) -> Tensor:
        """Read windows.

        Args:
            windows: Shape (N, samples), at most `longest`, about -1 to 1.

        Returns:
            Shape (N, copies, frames, bands), decibels; float64 where the windows are, else
            float32.
        """
        whole = self._whole(windows.double())
        hann = torch.hann_window(self.width, dtype=torch.float64, device=whole.device)
        spectrum = torch.stft(
            whole, self.width, self.hop, window=hann, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        bands = power.mT @ self.filters.to(whole.device)
        found = 10.0 * bands.clamp(min=FLOOR).log10()
        found = found[:, None].expand(-1, self.copies, -1, -1)
        return found if windows.dtype is torch.float64 else found.float()

    def _whole(self, windows: Tensor) -> Tensor:
        """Windows of full length."""
        times = self.longest // windows.shape[1]
        if self.padding == "repeat":
            windows = windows.repeat(1, times + 1)[:, : self.longest]
        elif self.padding == "repeatpad":
            windows = windows.repeat(1, times)
        return functional.pad(windows, (0, self.longest - windows.shape[1]))


def log_mel(extractor: Foreign) -> LogMel:
    """Read a folder's extractor.

    Args:
        extractor: transformers' ClapFeatureExtractor.

    Returns:
        The same function.

    Raises:
        ValueError: It is another one, or fills windows in a way that is not known here.
    """
    kind = type(extractor).__name__
    if kind != "ClapFeatureExtractor" or extractor.padding not in PADDINGS:
        raise ValueError(
            f"the preprocessing of this folder is {kind} with padding "
            f"'{getattr(extractor, 'padding', '')}'; CLAP Score knows ClapFeatureExtractor with "
            f"padding {', '.join(PADDINGS)}. Get the published folder again, or choose another."
        )
    is_fused = extractor.truncation == "fusion"
    filters = extractor.mel_filters if is_fused else extractor.mel_filters_slaney
    with torch.inference_mode(False):
        return LogMel(
            torch.tensor(filters, dtype=torch.float64),
            int(extractor.fft_window_size),
            int(extractor.hop_length),
            int(extractor.nb_max_samples),
            extractor.padding,
            4 if is_fused else 1,
        )
