"""How probable are data under the SDE or the ODE of a bridge, and how far may it be from them?

With b and s a model's velocity and score, its density at the target is (Feynman-Kac)

    rho(x) = E[ exp( int_0^1 (div b - eps div s) dt ) rho_source(Y_1) ],    Y_0 = x,
    dY = (b - eps s) dt + sqrt(2 eps) dW

over paths up to the source; at eps = 0, where there is one, the ODE's likelihood. These paths
spread, and the mean is over weights that differ by orders of magnitude. Paths of the drift
b + guide eps s, with the weight that this takes (Girsanov), have the same mean for any guide; at
guide = 1 and with the exact fields, which have b + eps s as the SDE's reverse, every path has the
weight rho(x): there is nothing left to average.

How far the model may be from the data is told by the fields' errors along the true densities,

    KL(data || SDE) <= 1/4 int E|db - eps ds|^2 / eps dt <= int (E|db|^2 / eps + eps E|ds|^2) / 2 dt

towards the target (db + eps ds towards the source), the second of which is least for
eps*(t)^2 = E|db|^2 / E|ds|^2, as is the first whatever the correlation of the errors. In terms of
objectives.py E|db|^2 is twice what L_b lacks of its minimum, so that the bound is
(L_b - min) / eps + eps (L_s - min). For the ODE there is no such bound: errors small in the mean
square may have a large divergence.

Source: Albergo, Boffi, Vanden-Eijnden 2023, arXiv:2303.08797, equations (2.45) and (2.58); the
guide is ours. Half of the second bound, which would be enough were the two errors uncorrelated, is
exceeded where db = -eps ds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Bounds", "Estimate", "best_diffusion", "bounds", "log_density"]

Field = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Estimate:
    """Log densities, one a row.

    Attributes:
        nats: log rho(x), shape (B,).
        error: Standard error from the spread of the paths' weights; 0 for the ODE.
        spread: Standard deviation of the log weights over paths, 0 where they all agree.
    """

    nats: Tensor
    error: Tensor
    spread: Tensor

    def cross_entropy(self) -> tuple[float, float]:
        """Return -E log rho over the rows, draws of the data, and its standard error.

        Returns:
            Nats; the error is that of the draws, which have the paths' in them.
        """
        count = len(self.nats)
        error = float(self.nats.std()) / math.sqrt(count) if count > 1 else math.nan
        return -float(self.nats.mean()), error


def log_density(
    velocity: Field,
    score: Field,
    source: Callable[[Tensor], Tensor],
    x: Tensor,
    times: Sequence[float],
    eps: Callable[[float], float],
    draw: Callable[[int], Tensor],
    paths: int,
    guide: float = 1.0,
) -> Estimate:
    """Estimate a model's log density at data by paths up to the source.

    Euler-Maruyama, first order in the steps. The log of a mean is low by about half the squared
    error.

    Args:
        velocity: b(x, t), differentiable in x.
        score: s(x, t), differentiable in x; not asked where eps is 0.
        source: source(x) returns log densities (B,) of the source.
        x: Data, shape (B, d).
        times: Rising times from 0 to 1.
        eps: eps(t), at least 0.
        draw: draw(step) returns standard normal noise of shape (paths * B, d).
        paths: Paths a row, at least 1.
        guide: 0 for the plain formula; any other number has the same mean.

    Returns:
        The estimate.

    Raises:
        ValueError: Times that do not rise from 0 to 1, or no path.

    Example:
        >>> def still(x, t):  # a bridge from N(0, 1) to itself that does not move
        ...     return 0.0 * x
        >>> def normal(x):
        ...     return -0.5 * (x.square() + math.log(2.0 * math.pi)).sum(-1)
        >>> x = torch.zeros(1, 1)
        >>> found = log_density(still, still, normal, x, [0.0, 1.0], lambda t: 0.0, lambda i: x, 1)
        >>> round(found.nats.item(), 4)
        -0.9189
    """
    if paths < 1 or len(times) < 2 or times[0] != 0.0 or times[-1] != 1.0:
        raise ValueError(
            f"give at least one path, got {paths}, and times that rise from 0 (the target) to 1 "
            "(the source)"
        )
    y = x.repeat(paths, 1)
    log_weight = torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for step, (t, t_next) in enumerate(pairwise(times)):
        h, strength = t_next - t, eps(t)
        if h <= 0.0:
            raise ValueError(f"times must rise, but {t_next} comes after {t}")
        b, grown = _with_divergence(velocity, y, t)
        log_weight = log_weight + h * grown
        y_next = y + h * b
        if strength > 0.0:
            s, converged = _with_divergence(score, y, t)
            noise = math.sqrt(2.0 * strength) * draw(step).to(y)
            y_next = y_next + (2.0 * guide - 1.0) * h * strength * s + math.sqrt(h) * noise
            log_weight = log_weight - h * strength * converged
            log_weight = log_weight - h * strength * guide**2 * s.square().sum(-1)
            log_weight = log_weight - guide * math.sqrt(h) * (s * noise).sum(-1)
        y = y_next
    logs = (log_weight + source(y)).reshape(paths, -1)
    nats = torch.logsumexp(logs, 0) - math.log(paths)
    if paths == 1:
        none = torch.zeros_like(nats)
        return Estimate(nats, none, none)
    weights = torch.exp(logs - nats)
    return Estimate(nats, weights.std(0) / math.sqrt(paths), logs.std(0))


def _with_divergence(field: Field, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Return a field and the sum of d field_i / d x_i, each by its own backward pass."""
    with torch.enable_grad():
        at = x.detach().requires_grad_(True)
        value = field(at, t)
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for i in range(x.shape[1]):
            (slope,) = torch.autograd.grad(value[:, i].sum(), at, retain_graph=True)
            total = total + slope[:, i]
    return value.detach(), total.detach()


@dataclass(frozen=True)
class Bounds:
    """What the errors of velocity and score allow, by time; lists are aligned.

    Attributes:
        times: Midpoints of the rule, evenly spaced.
        velocity: E|db|^2.
        score: E|ds|^2.
        joint: E|db - eps ds|^2, or with the other sign towards the source.
        eps: eps(t).
    """

    times: list[float]
    velocity: list[float]
    score: list[float]
    joint: list[float]
    eps: list[float]

    @property
    def tight(self) -> float:
        """Bound of the divergence by the joint error; infinite where eps is 0 and it is not."""
        return self._mean([_over(f, 4.0 * e) for f, e in zip(self.joint, self.eps, strict=True)])

    @property
    def loose(self) -> float:
        """Bound by the two errors apart, which is (L_b - min) / eps + eps (L_s - min)."""
        rows = zip(self.velocity, self.score, self.eps, strict=True)
        return self._mean([_over(b, 2.0 * e) + 0.5 * e * s for b, s, e in rows])

    @property
    def best(self) -> list[float]:
        """eps*(t), the diffusion for which both bounds are least."""
        return [best_diffusion(b, s) for b, s in zip(self.velocity, self.score, strict=True)]

    def _mean(self, values: Sequence[float]) -> float:
        return sum(values) / len(values)


def best_diffusion(velocity: float, score: float) -> float:
    """Return eps* = sqrt(velocity / score) for what two errors, or two objectives, are too much.

    Args:
        velocity: E|db|^2, or L_b above its minimum.
        score: E|ds|^2, or L_s above its minimum.

    Returns:
        eps*; infinite where the score has no error.

    Example:
        >>> best_diffusion(0.02, 0.08)
        0.5
    """
    return math.sqrt(velocity / score) if score > 0.0 else math.inf


def bounds(
    velocities: tuple[Field, Field],
    scores: tuple[Field, Field],
    states: Callable[[float], Tensor],
    eps: Callable[[float], float],
    count: int = 50,
    towards_source: bool = False,
) -> Bounds:
    """Work out the bounds of an SDE from the errors of its fields, by the midpoint rule in t.

    Args:
        velocities: The model's b and the exact one.
        scores: The model's s and the exact one.
        states: states(t) draws from the exact density at t, shape (n, d).
        eps: eps(t), at least 0.
        count: Times.
        towards_source: Which SDE: down to the target, or up to the source.

    Returns:
        The errors and, by them, the bounds.
    """
    times = [(i + 0.5) / count for i in range(count)]
    rows: list[tuple[float, float, float]] = []
    for t in times:
        x = states(t)
        of_b = velocities[0](x, t) - velocities[1](x, t)
        of_s = scores[0](x, t) - scores[1](x, t)
        both = of_b + (eps(t) if towards_source else -eps(t)) * of_s
        rows.append((_square(of_b), _square(of_s), _square(both)))
    of_b, of_s, both = (list(column) for column in zip(*rows, strict=True))
    return Bounds(times, of_b, of_s, both, [eps(t) for t in times])


def _square(values: Tensor) -> float:
    return float(values.square().sum(-1).mean())


def _over(value: float, by: float) -> float:
    if by > 0.0:
        return value / by
    return math.inf if value > 0.0 else 0.0
