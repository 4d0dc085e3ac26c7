"""How probable does a model find a picture?

From predictions alone (I-MMSE): with g = 1 / rho^2 the signal-to-noise ratio of y = x + rho eps,

    -log p(x) = d/2 log(2 pi e) - 1/2 int_0^inf (d / (1 + g) - E_eps |x - D(y, rho)|^2) dg

by the midpoint rule in log g, which converges exponentially because the integrand falls off at both
ends, with the tails stated in forward(). Or along the probability-flow ODE, with a divergence by
differences, because the host's inference mode has no derivatives:

    log p(x) = log p_end(x_end) + int div dx

Both are densities: nats, in the units of x. bits_per_dimension() turns them into the usual figure.
Both hold for D = E[x0 | y] only; a prediction after guidance is the mean of no density
(Ma et al. 2024, arXiv:2401.08740, appendix C).

Source: Kong, Brekelmans, Ver Steeg 2023, arXiv:2302.03792 (the pointwise I-MMSE identity).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "WIDTH",
    "Likelihood",
    "Node",
    "bits_per_dimension",
    "forward",
    "log_snr_of",
    "midpoint",
    "ode",
    "sigma_at",
]

Predict = Callable[[Tensor, float], Tensor]
Draw = Callable[[int, int], Tensor]

# Perturbation of the ODE's divergence, in units of sigma; see ode()
WIDTH = 0.1


class Node(NamedTuple):
    """Where the integrand is evaluated: log g, and the weight of the rule there."""

    log_snr: float
    weight: float


@dataclass(frozen=True)
class Likelihood:
    """What was estimated, one row an item.

    Attributes:
        nats: -log p(x), shape (B,), float64.
        error: Standard error of nats from the noises, shape (B,).
        map: Nats of each element, shape of x; sums to nats.
        beyond: Part of nats that stands for the log SNRs above the range, shape (B,); 0 for ode().
        residuals: E|x - D|^2 at each node, shape (nodes, B); no nodes for ode().
        evaluations: Predictions used, each of the whole batch.
    """

    nats: Tensor
    error: Tensor
    map: Tensor
    beyond: Tensor
    residuals: Tensor
    evaluations: int


def midpoint(count: int, low: float, high: float) -> list[Node]:
    """Return the midpoint rule on an interval of log signal-to-noise ratio.

    Args:
        count: Number of nodes, at least 1.
        low: Lower end.
        high: Upper end.

    Returns:
        Nodes by rising log SNR.

    Raises:
        ValueError: No node, or an empty interval.
    """
    if count < 1 or not low < high:
        raise ValueError(
            f"{count} nodes between the log SNRs {low} and {high}: give at least one node and a "
            "lower end below the upper one"
        )
    step = (high - low) / count
    return [Node(low + (i + 0.5) * step, step) for i in range(count)]


def sigma_at(log_snr: float, noise_scale: float = 1.0) -> float:
    """Return the linear sigma with a log signal-to-noise ratio, log g = 2 log((1 - s) / (s n)).

    Args:
        log_snr: log g.
        noise_scale: n, standard deviation of the path's noise.

    Returns:
        sigma in (0, 1).
    """
    return 1.0 / (1.0 + noise_scale * math.exp(0.5 * log_snr))


def log_snr_of(sigma: float, noise_scale: float = 1.0) -> float:
    """Return log g at a linear sigma; the inverse of sigma_at().

    Args:
        sigma: In (0, 1).
        noise_scale: Standard deviation of the path's noise.

    Returns:
        log g.
    """
    return 2.0 * math.log((1.0 - sigma) / (sigma * noise_scale))


def bits_per_dimension(nats: Tensor, dimensions: int, bin_width: float = 1.0) -> Tensor:
    """Turn nats of a density into bits per dimension.

        bits = (nats / d - log w) / log 2

    Data with bins of width w, dequantised by adding uniform noise of one bin, have the probability
    P = E_u p(x + u) w^d, so by Jensen's inequality -log P is at most E_u nats - d log w (Theis et
    al. 2016, arXiv:1511.01844, section 3.1). 256 levels from -1 to 1 are 2/255 apart, which adds
    log2(127.5) = 6.994 bits to the density's own figure. Without bins (w = 1) the figure depends
    on the scale of the data and may be negative.

    Args:
        nats: -log p(x).
        dimensions: d.
        bin_width: w, in the units of x.

    Returns:
        Bits per dimension.
    """
    return (nats / dimensions - math.log(bin_width)) / math.log(2.0)


def forward(
    predict: Predict,
    x: Tensor,
    nodes: Sequence[Node],
    draw: Draw,
    noises: int,
    noise_scale: float = 1.0,
) -> Likelihood:
    """Estimate -log p(x) from predictions of noised copies of x (I-MMSE).

    Every noise is used with both signs, which removes what is odd in it, and with a control
    variate: |eps|^2, whose mean is known, times a coefficient that is regressed on the other noises
    of the same node, so that the estimate stays unbiased. The standard error comes from the spread
    over noises at each node; it knows nothing of the error of D or of too few nodes.

    Below the range, where g is small, E|x - D|^2 is taken as it is at the lowest node. Above it
    d / (1 + g) - E|x - D|^2 is taken to fall as 1 / g^2 from the highest node on, as it does where
    the density is smooth at that scale; data without noise of their own never get there, and then
    the figure is that of the data seen at the upper end's noise.

    Args:
        predict: predict(x, sigma) returns D of states (1 - sigma) x0 + sigma n eps, linear sigma.
        x: Clean data, shape (B, C, *S).
        nodes: The rule, by rising log SNR.
        draw: draw(node, noise) returns standard normal noise that broadcasts to x.
        noises: Noises a node, each predicted with both signs; at least 2.
        noise_scale: n above.

    Returns:
        The estimate; evaluations = 2 len(nodes) noises.

    Raises:
        ValueError: Fewer than two noises, or no node.
    """
    if noises < 2 or not nodes:
        raise ValueError(
            f"{noises} noises at {len(nodes)} nodes: give at least one node and two noises, whose "
            "spread is the standard error"
        )
    constant, factors, beyond_of = _weights(nodes)
    wide = torch.promote_types(x.dtype, torch.float32)
    surprise = torch.full_like(x, 0.5 * (math.log(2.0 * math.pi * math.e) - constant), dtype=wide)
    variance = torch.zeros(x.shape[0], dtype=torch.float64)
    means = torch.zeros(len(nodes), x.shape[0], dtype=torch.float64)
    for index, (node, factor) in enumerate(zip(nodes, factors, strict=True)):
        sigma = sigma_at(node.log_snr, noise_scale)
        residuals: list[Tensor] = []
        squares: list[Tensor] = []
        for noise in range(noises):
            eps = draw(index, noise).to(x)
            pair = [x - predict(_noised(x, e, sigma), sigma) for e in _both(eps * noise_scale)]
            residuals.append(0.5 * (pair[0].to(wide).square() + pair[1].to(wide).square()))
            squares.append((eps.to(wide).square() - 1.0).expand_as(x))
        values = _controlled(torch.stack(residuals), torch.stack(squares))
        sums = _sum(values, 2)
        surprise += 0.5 * factor * values.mean(0)
        variance += (0.5 * factor) ** 2 * sums.var(0) / noises
        means[index] = sums.mean(0)
    beyond = -0.5 * (beyond_of[0] * x[0].numel() - beyond_of[1] * means[-1])
    evaluations = 2 * len(nodes) * noises
    return Likelihood(_sum(surprise, 1), variance.sqrt(), surprise, beyond, means, evaluations)


def ode(
    predict: Predict,
    x: Tensor,
    nodes: Sequence[Node],
    draw: Draw,
    probes: int,
    noise_scale: float = 1.0,
    width: float = WIDTH,
) -> Likelihood:
    """Estimate -log p(x) along the probability-flow ODE, from the data to the noise.

        dx/dl = (1 - sigma) (x - D),    l = log rho,    div = (1 - sigma) (d - tr dD/dx)

    by the explicit midpoint rule, second order, one step a node. The trace is p (D(x + h p) -
    D(x - h p)) / 2 h with h = width sigma n, averaged over random signs p (Hutchinson; Rademacher)
    that stay the same along the whole way, so that the estimate is smooth. The difference is wrong
    by h^2 / 6 of D's third derivative, and by the predictions' rounding error over h. Against
    width .03 in float32, the embedded model's figure moves by .004 bits per dimension at .1 and
    .043 at .3 in float32, by .027 at .03, .019 at .1 and .048 at .3 in bfloat16, at a standard
    error of .005 (benchmarks/likelihood.py --methods). At the noise end the data are taken as
    N(D, 1), D the last prediction.

    The standard error is that of the probes alone.

    Args:
        predict: As for forward().
        x: Clean data, shape (B, C, *S).
        nodes: Steps, by rising log SNR; the last ends at the data.
        draw: draw(0, probe) returns standard normal noise, whose signs are the probe.
        probes: At least 2.
        noise_scale: As for forward().
        width: Perturbation in units of sigma n.

    Returns:
        The estimate; evaluations = (2 + 2 probes) len(nodes); beyond is 0.

    Raises:
        ValueError: Fewer than two probes, or no node.
    """
    if probes < 2 or not nodes:
        raise ValueError(
            f"{probes} probes and {len(nodes)} steps: give at least one step and two probes, whose "
            "spread is the standard error"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    signs = [draw(0, probe).to(x).expand_as(x).sign() for probe in range(probes)]
    highest = nodes[-1].log_snr + 0.5 * nodes[-1].weight
    start = sigma_at(highest, noise_scale)
    state = (1.0 - start) * x.to(wide)
    denoised = state
    grown = torch.full_like(state, math.log(1.0 - start))  # log of the volume's growth
    trace = [torch.zeros_like(state) for _ in signs]
    log_snr = highest
    for node in reversed(nodes):
        sigma, half = sigma_at(log_snr, noise_scale), 0.25 * node.weight  # l = -log g / 2
        slope = (1.0 - sigma) * (state - predict(state.to(x.dtype), sigma))
        middle = sigma_at(node.log_snr, noise_scale)
        between = state + half * slope
        denoised = predict(between.to(x.dtype), middle).to(wide)
        slope = (1.0 - middle) * (between - denoised)
        h = width * middle * noise_scale
        for total, p in zip(trace, signs, strict=True):
            change = predict((between + h * p).to(x.dtype), middle)
            change = change - predict((between - h * p).to(x.dtype), middle)
            total += 2.0 * half * (1.0 - middle) * (p * change).to(wide) / (2.0 * h)
        state = state + 2.0 * half * slope
        grown += 2.0 * half * (1.0 - middle)
        log_snr -= node.weight
    end = sigma_at(log_snr, noise_scale)
    spread = (1.0 - end) ** 2 + (end * noise_scale) ** 2
    gap = state - (1.0 - end) * denoised
    gaussian = 0.5 * (gap.square() / spread + math.log(2.0 * math.pi * spread))
    traces = torch.stack(trace)
    surprise = gaussian - grown + traces.mean(0)
    error = (_sum(traces, 2).var(0) / probes).sqrt()
    evaluations = (2 + 2 * probes) * len(nodes)
    none = torch.zeros_like(error)
    return Likelihood(
        _sum(surprise, 1), error, surprise, none, none.new_zeros(0, len(x)), evaluations
    )


def _weights(nodes: Sequence[Node]) -> tuple[float, list[float], tuple[float, float]]:
    """Write the integral with its tails as constant - sum of factors E|x - D|^2, an element.

    Args:
        nodes: The rule.

    Returns:
        The constant; the factors; and of the upper tail alone constant and factor, which belongs
        to the last node.
    """
    snr = [math.exp(node.log_snr) for node in nodes]
    lowest = math.exp(nodes[0].log_snr - 0.5 * nodes[0].weight)
    tail = math.exp(-0.5 * nodes[-1].weight)  # of a function like 1 / g^2, over its value there
    constant = math.log1p(lowest) + tail * snr[-1] / (1.0 + snr[-1])
    constant += sum(node.weight * g / (1.0 + g) for node, g in zip(nodes, snr, strict=True))
    factors = [node.weight * g for node, g in zip(nodes, snr, strict=True)]
    factors[0] += lowest
    factors[-1] += tail * snr[-1]
    return constant, factors, (tail * snr[-1] / (1.0 + snr[-1]), tail * snr[-1])


def _noised(x: Tensor, eps: Tensor, sigma: float) -> Tensor:
    return (1.0 - sigma) * x + sigma * eps


def _both(eps: Tensor) -> tuple[Tensor, Tensor]:
    return eps, -eps


def _sum(values: Tensor, start: int) -> Tensor:
    # on the CPU: not every device has float64, and a nat in millions matters
    return values.flatten(start).cpu().sum(-1, dtype=torch.float64)


def _controlled(values: Tensor, control: Tensor) -> Tensor:
    """Subtract a control of mean 0 and variance 2, with a coefficient from the other noises.

    Args:
        values: Shape (noises, B, C, *S).
        control: The same shape.

    Returns:
        Values of the same mean.
    """
    count = values.shape[0]
    centred = values - values.flatten(2).mean(-1).view(*values.shape[:2], *[1] * (values.ndim - 2))
    products, norms = _sum(centred * control, 2), _sum(control.square(), 2)
    others = products.sum(0) - products
    slope = others / (norms.sum(0) - norms)
    return values - slope.to(values).view(count, -1, *[1] * (values.ndim - 2)) * control
