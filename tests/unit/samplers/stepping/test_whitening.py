"""A white gradient has the size of noise, of whatever size it was; a row of zeros has none."""

import pytest
import torch

from flowsearch.samplers.stepping.whitening import WHITENINGS, bands, white

SHAPES = [(2, 5), (2, 3, 8, 8), (2, 3, 7, 12), (2, 1, 3, 4, 6), (1, 1, 1, 1)]


@pytest.mark.parametrize("whitening", WHITENINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_rows_have_a_mean_square_of_1(whitening, shape, size):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * size
    out = white(g, whitening)
    assert out.shape == g.shape
    torch.testing.assert_close(out.flatten(1).square().mean(1), torch.ones(shape[0]))
    # rows are independent of each other
    torch.testing.assert_close(white(g[-1:], whitening), out[-1:])


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_zeros_stay_zeros_and_half_precision_is_widened(whitening):
    g = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).half() * 1e-3
    g[1] = 0.0
    out = white(g, whitening)
    assert out.dtype == torch.float32
    assert not out[1].any()
    assert float(out[0].square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_a_spectrum_is_flat_by_octaves_and_a_scale_keeps_the_direction():
    ramp = torch.linspace(-1.0, 1.0, 16).expand(1, 2, 16, 16) + 0.01 * torch.randn(
        1, 2, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(
        white(ramp, "scale") / white(ramp, "scale")[0, 0, 0, 0], ramp / ramp[0, 0, 0, 0]
    )
    of = bands((16, 16)).flatten()
    power = torch.fft.fftn(white(ramp, "spectrum"), dim=(2, 3), norm="ortho").abs().square()
    for band in range(int(of.max()) + 1):
        inside = power.flatten(2)[:, :, of == band].mean(2)
        torch.testing.assert_close(inside, torch.ones(1, 2), rtol=1e-3, atol=1e-3)


def test_bands_are_octaves():
    assert bands((16,)).tolist() == [0, 1, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 3, 3, 2, 1]
    assert bands((4, 8)).max() == 3
    assert bands((4, 8))[1, 0] == 2
