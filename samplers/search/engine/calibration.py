"""At which reward is a picture among the best p percent of plain samples?

Measured on a few plain samples, as if their rewards were normally distributed:

    target = mean + t s sqrt(1 + 1/n)

with n rewards, their mean and standard deviation s (of n - 1), and t exceeded by p percent of
Student's distribution with n - 1 degrees of freedom: (reward - mean) / (s sqrt(1 + 1/n)) of one
more sample has that distribution. On average over such measurements p percent of further plain
samples lie above the target, whatever n is. A quantile of the n rewards themselves could not ask
for more than the best of them: the best of 16 is only among the best 6 percent. Equal rewards have
no scale, and tell nothing.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

__all__ = ["LEAST", "SAMPLES", "students_t", "top_target"]

SAMPLES = 16
LEAST = 4  # fewer say too little of the spread


def top_target(
    scores: Sequence[float], percent: float, highest: float | None = None
) -> float | None:
    """Return the reward that the best p percent of plain samples reach.

    Args:
        scores: Rewards of plain samples.
        percent: p, between 0 and 100.
        highest: The most the reward can give; None for no limit.

    Returns:
        The target, not above highest; highest where the scores tell nothing.
    """
    n = len(scores)
    scale = stdev(scores) if n >= LEAST else 0.0
    if scale == 0.0 or not math.isfinite(scale):
        return highest
    t = students_t(1.0 - percent / 100.0, n - 1)
    target = fmean(scores) + t * scale * math.sqrt(1.0 + 1.0 / n)
    return target if highest is None else min(target, highest)


def students_t(probability: float, freedom: int) -> float:
    """Return a quantile of Student's distribution, by Cornish-Fisher expansion in 1 / freedom.

    Args:
        probability: Between 0 and 1.
        freedom: Degrees of freedom; from 3 on the error is below 1 % between .02 and .98.

    Returns:
        The quantile.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
