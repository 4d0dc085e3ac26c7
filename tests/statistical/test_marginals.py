"""Every stochastic transition carries the data's law: mean, std and distribution.

Exact fields, samples from the exact marginal of the first sigma, 200 steps. A run may miss by the
discretisation's error, which is first order in the steps (test_integrators.py of the unit tests),
plus 5 standard errors. Transitions with a fixed q are the limit of no SDE and keep no marginal.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from fields import FLOAT64, Mixture, gaussian, ks_distance
from propagation import MUTANTS, Broken, propagate

from flowsearch.samplers.paths.noise_law import NOISE_LAWS, noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import Transition

COUNT, STEPS = 20_000, 200
MIXTURE = Mixture((0.3, 0.5, 0.2), (-1.5, 0.5, 2.0), (0.25, 0.3, 0.2))
GAUSSIAN = gaussian(0.5, 0.4)
# Kolmogorov's distribution: sqrt(n) KS exceeds 2.2 in 1 of 8,000 runs
KS_CRITICAL = 2.2 / math.sqrt(COUNT)
MEAN_BOUND = 0.01 + 5.0 / math.sqrt(COUNT)
STD_BOUND = 0.02 + 5.0 / math.sqrt(2.0 * COUNT)
KS_BOUND = 0.01 + KS_CRITICAL

# sit_linear is sit_sigma on the linear path
SDES = [name for name, spec in NOISE_LAWS.items() if spec.k is not None and name != "sit_linear"]
TAPERED = "tapered"


def law(name):
    if name == TAPERED:
        return noise_law("constant_k", k=1.0, taper=(0.2, 0.12))
    if name == "sit_constant":  # at norm 1 its first-order error is 12 % of the std at 200 steps
        return noise_law(name, norm=0.1)
    return noise_law(name, points=[(0.2, 0.0), (0.9, 1.0)] if name == "curve" else None)


@dataclass(frozen=True)
class Case:
    """A transition and the list of sigmas to run it on."""

    law: str
    method: str = "exact"
    interpolant: str = "linear"

    @property
    def transition(self):
        path = self.interpolant if self.method == "euler_maruyama" else "linear"
        return Transition(law(self.law), self.method, path)

    @property
    def sigmas(self):
        # .98: a drift that is infinite at 1 is already large nearer to it than this
        return in_interpolant(self.interpolant, STEPS, start=0.98)

    def __str__(self):
        return f"{self.law}-{self.method}-{self.interpolant}"


HIGHER = [
    Case(law, method)
    for method in ("second_order", "heun", "glass")
    for law in ("ode", "constant_k", "sit_sigma", TAPERED)
]
EXACT = [Case(name) for name in [*SDES, TAPERED]]
EXACT += [Case("constant_k", interpolant=path) for path in ("vp", "trigonometric", "ve")]
MARUYAMA = [
    Case(name, "euler_maruyama", path)
    for name in ("ode", "constant_k", "sit_sigma", "sit_increasing_decreasing", "rbf_reference")
    for path in ("linear", "vp", "trigonometric", "ve")
]
CASES = pytest.mark.parametrize("case", EXACT + HIGHER + MARUYAMA, ids=str)


def run(transition, sigmas, data, seed=0):
    """Return COUNT finished samples."""
    generator = torch.Generator().manual_seed(seed)
    x = data.draw(COUNT, sigmas[0], generator)

    def noise(_):
        return torch.randn(COUNT, 1, generator=generator).to(FLOAT64)  # drawn three times faster

    return integrate(data.denoise, x, sigmas, transition, noise).flatten()


def misses(sample, cdf, mean, std):
    """Return the gaps of mean, std and distribution, the first two in units of std."""
    ordered = sample.sort().values
    return (
        abs(float(sample.mean()) - mean) / std,
        abs(float(sample.std()) / std - 1.0),
        ks_distance(ordered, cdf(ordered)),
    )


@CASES
def test_gaussian_runs_have_their_exact_law(case):
    """The law of the run itself is known exactly, so that Monte Carlo error is all there is."""
    sigmas = case.sigmas
    mean, std = propagate(case.transition, sigmas, GAUSSIAN, *GAUSSIAN.moments(sigmas[0]))
    sample = run(case.transition, sigmas, GAUSSIAN)
    gaps = misses(sample, lambda x: torch.special.ndtr((x - mean) / std), mean, std)
    assert gaps[0] < 5.0 / math.sqrt(COUNT)
    assert gaps[1] < 5.0 / math.sqrt(2.0 * COUNT)
    assert gaps[2] < KS_CRITICAL
    # and that law is the data's, up to the discretisation
    assert abs(mean - 0.5) < 0.01
    assert abs(std / 0.4 - 1.0) < 0.03


@CASES
def test_mixture_runs_have_the_datas_law(case):
    gaps = misses(run(case.transition, case.sigmas, MIXTURE), MIXTURE.cdf, *MIXTURE.moments())
    assert gaps[0] < MEAN_BOUND
    assert gaps[1] < STD_BOUND
    assert gaps[2] < KS_BOUND


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("case", [EXACT[1], MARUYAMA[4]], ids=str)
def test_broken_transitions_are_seen_in_std_and_distribution(case, mutant):
    """The mean alone would pass most of them."""
    broken = Broken(case.transition, MUTANTS[mutant])
    _, std, ks = misses(run(broken, case.sigmas, MIXTURE), MIXTURE.cdf, *MIXTURE.moments())
    assert std > STD_BOUND
    assert ks > KS_BOUND
