"""Which fields has a bridge between two Gaussian mixtures? All of them, in closed form.

With x0 from component i of the target and x1 from component j of the source, both of diagonal
covariance, and cov(x0, x1) = c, a state is normal,

    x ~ N(alpha m_i + beta n_j, V),    V = alpha^2 v_i + beta^2 w_j + 2 alpha beta c + gamma^2,

and so are x0, x1 and z given x. The fields are their means, weighted by how probable each pair of
components is at x. They are what a network that is trained on draws should come to, which is how
samplers, objectives and bounds are tested here, and what a benchmark compares with.

The Schroedinger bridge of two normal distributions is the Brownian bridge of variance 2 eps between
x0 and x1 with the covariance that schroedinger_covariance() returns.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..paths.two_sided import TwoSided

__all__ = ["BridgeFields", "Mixture", "MixtureBridge", "schroedinger_covariance"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of normal distributions with diagonal covariances.

    Attributes:
        weights: Shape (K,), adding to 1.
        means: Shape (K, d).
        variances: Shape (K, d); 0 is a point.

    Raises:
        ValueError: Shapes differ, or weights that are none.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        """Refuse shapes that differ."""
        count = len(self.weights)
        if self.means.ndim != 2 or not len(self.means) == count == len(self.variances):
            raise ValueError(
                f"a mixture has weights (K,) and means and variances (K, d); got "
                f"{tuple(self.weights.shape)}, {tuple(self.means.shape)} and "
                f"{tuple(self.variances.shape)}"
            )
        total = float(self.weights.sum())
        if not (abs(total - 1.0) < 1e-6 and bool((self.weights > 0.0).all())):
            raise ValueError(f"the weights of a mixture are above 0 and add to 1, not {total}")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw states and the components they are of.

        Args:
            count: How many.
            generator: Where randomness comes from.

        Returns:
            Shapes (count, d) and (count,).
        """
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], generator=generator).to(self.means)
        return self.means[which] + self.variances[which].sqrt() * z, which

    def log_density(self, x: Tensor) -> Tensor:
        """Return log p of states (B, d), shape (B,)."""
        gap = x.unsqueeze(1) - self.means
        exponent = -0.5 * (gap.square() / self.variances + self.variances.log()).sum(-1)
        constant = 0.5 * self.means.shape[1] * math.log(2.0 * math.pi)
        return torch.logsumexp(self.weights.log() + exponent, 1) - constant

    def cdf(self, values: Tensor, direction: Tensor) -> Tensor:
        """Return the distribution function of the coordinate along a direction.

        Args:
            values: Any shape.
            direction: Shape (d,).

        Returns:
            Shape of values.
        """
        centres, spreads = self.means @ direction, (self.variances @ direction.square()).sqrt()
        z = (values.unsqueeze(-1) - centres) / spreads
        below = 0.5 * torch.erfc(-math.sqrt(0.5) * z)
        return (below * self.weights).sum(-1)


@dataclass(frozen=True, eq=False)
class BridgeFields:
    """Fields at states, each of the shape of the states; see ../paths/two_sided.py."""

    x0: Tensor
    x1: Tensor
    noise: Tensor
    score: Tensor
    velocity: Tensor


@dataclass(frozen=True, eq=False)
class MixtureBridge:
    """A path between two mixtures, with its exact fields.

    Attributes:
        target: Density of x0.
        source: Density of x1.
        path: Their path.
        coupling: Probability of each pair of components, shape (K target, K source); None for
            independent draws.
        covariance: cov(x0, x1) within a pair, a number or shape (d,).

    Example:
        >>> from flowsearch.samplers.paths.two_sided import two_sided
        >>> one = torch.ones(1)
        >>> normal = Mixture(one, torch.zeros(1, 1), torch.ones(1, 1))
        >>> bridge = MixtureBridge(normal, normal, two_sided("linear", "none"))
        >>> bridge.fields(torch.ones(1, 1), 0.5).x0
        tensor([[1.]])
    """

    target: Mixture
    source: Mixture
    path: TwoSided
    coupling: Tensor | None = None
    covariance: float | Tensor = 0.0
    _pairs: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the probabilities of pairs."""
        pairs = torch.outer(self.target.weights, self.source.weights)
        object.__setattr__(self, "_pairs", pairs if self.coupling is None else self.coupling)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw pairs (x0, x1), each of shape (count, d)."""
        shape = self._pairs.shape
        flat = torch.multinomial(
            self._pairs.flatten(), count, replacement=True, generator=generator
        )
        i, j = flat // shape[1], flat % shape[1]
        z, other = torch.randn(2, count, self.target.means.shape[1], generator=generator).to(
            self.target.means
        )
        v, w = self.target.variances[i], self.source.variances[j]
        share = self.covariance / v
        left = (w - share * self.covariance).sqrt()
        x0 = v.sqrt() * z
        return self.target.means[i] + x0, self.source.means[j] + share * x0 + left * other

    def fields(self, x: Tensor, t: float) -> BridgeFields:
        """Return the exact fields.

        Args:
            x: States, shape (B, d).
            t: Time in [0, 1].

        Returns:
            The fields; at t = 0 and 1 too, where the velocity of a Brownian gamma is a limit.
        """
        path = self.path
        a, b, g = path.alpha(t), path.beta(t), path.gamma(t)
        gap, variance, log_p = self._components(x, t)
        share = torch.softmax(log_p, 0).unsqueeze(-1)
        pull = gap / variance
        v, w = self._end_variances()
        m, n = self._end_means()
        of_x0 = m + (a * v + b * self.covariance) * pull
        of_x1 = n + (b * w + a * self.covariance) * pull
        x0, x1, mean = ((share * each).sum(0) for each in (of_x0, of_x1, pull))
        drift = path.alpha_dot(t) * x0 + path.beta_dot(t) * x1
        return BridgeFields(x0, x1, g * mean, -mean, drift + path.spread(t) * mean)

    def ends(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Return (D, S), as samplers want them."""
        fields = self.fields(x, t)
        return fields.x0, fields.x1

    def log_density(self, x: Tensor, t: float) -> Tensor:
        """Return log rho(t, x) of states (B, d), shape (B,)."""
        constant = 0.5 * x.shape[1] * math.log(2.0 * math.pi)
        return torch.logsumexp(self._components(x, t)[2], 0) - constant

    def _end_means(self) -> tuple[Tensor, Tensor]:
        shape = (*self._pairs.shape, -1)
        m = self.target.means.unsqueeze(1).expand(shape).flatten(0, 1).unsqueeze(1)
        n = self.source.means.unsqueeze(0).expand(shape).flatten(0, 1).unsqueeze(1)
        return m, n

    def _end_variances(self) -> tuple[Tensor, Tensor]:
        shape = (*self._pairs.shape, -1)
        v = self.target.variances.unsqueeze(1).expand(shape).flatten(0, 1).unsqueeze(1)
        w = self.source.variances.unsqueeze(0).expand(shape).flatten(0, 1).unsqueeze(1)
        return v, w

    def _components(self, x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return gaps (pairs, B, d), variances and log weights of the components at x."""
        a, b, g = self.path.alpha(t), self.path.beta(t), self.path.gamma(t)
        (m, n), (v, w) = self._end_means(), self._end_variances()
        variance = a * a * v + b * b * w + 2.0 * a * b * self.covariance + g * g
        gap = x.unsqueeze(0) - (a * m + b * n)
        exponent = -0.5 * (gap.square() / variance + variance.log()).sum(-1)
        return gap, variance, self._pairs.flatten().log().unsqueeze(-1) + exponent


def schroedinger_covariance(target: float, source: float, eps: float) -> float:
    """Return cov(x0, x1) of the Schroedinger bridge between two normal distributions.

        c = (sqrt(4 v w + 4 eps^2) - 2 eps) / 2

    for the reference dx = sqrt(2 eps) dW on [0, 1].

    Source: Bunne et al. 2023, arXiv:2202.05722, whose sigma^2 is 2 eps.

    Args:
        target: v, variance of x0.
        source: w, variance of x1.
        eps: Diffusion, at least 0.

    Returns:
        The covariance; at eps = 0 that of optimal transport.

    Example:
        >>> schroedinger_covariance(1.0, 4.0, 0.0)
        2.0
    """
    return math.sqrt(target * source + eps * eps) - eps
