"""On a GPU too the transition without noise is the host's Euler to the bit."""

from itertools import pairwise

import pytest
import torch

from flowsearch.samplers.paths.sigmas import in_interpolant, uniform
from flowsearch.samplers.stepping.transition import ODE, fixed_q, step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("sigmas", [uniform(20, shift=3.0), in_interpolant("vp", 17)], ids=str)
def test_no_noise_is_the_hosts_euler_to_the_bit(sigmas):
    sigmas = torch.tensor(sigmas, dtype=torch.float32, device="cuda")
    x = torch.randn(2, 16, 64, 64, device="cuda")
    denoised = torch.randn(2, 16, 64, 64, device="cuda")
    for sigma, sigma_next in pairwise(sigmas):
        d = (x - denoised) / sigma[(...,) + (None,) * x.ndim]
        expected = x + d * (sigma_next - sigma)
        row = ODE.coefficients(sigma.item(), sigma_next.item())
        assert torch.equal(step(x, denoised, row, None), expected)


def test_noise_from_the_cpu_is_taken():
    x = torch.randn(2, 3, device="cuda", dtype=torch.float16)
    out = step(x, x, fixed_q(0.5).coefficients(0.8, 0.5), torch.randn(2, 3))
    assert (out.device, out.dtype) == (x.device, x.dtype)
