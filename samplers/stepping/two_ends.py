"""How does a state get from one time of a two-sided path to another?

With both ends frozen, D for the target and S for the source, the exact law of every SDE of a path
x = alpha x0 + beta x1 + gamma z (../paths/two_sided.py) is, in both directions of time,

    x' = alpha' D + beta' S + gamma' (q z-hat + sqrt(1 - q^2) z),
    z-hat = (x - alpha D - beta S) / gamma                                             (T2)

which is (T) of transition.py with a second end. Where gamma = 0 nothing is known of the noise, and
z-hat is its mean, 0; but of a source that is held (x1 itself, which the network was told) a start
draws all of its noise (Zheng et al. 2024, arXiv:2405.15885, call it booting noise), for the ODE of
a point is none. Second order takes both ends linear in t through the last two predictions of each,
and redoes the step before with the prediction at its end.

With linear ends, a Brownian gamma of scale s and eps = s^2 / 2 the weight of S is 0 and (T2) is
(B) of bridge.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from ..paths.diffusion import Diffusion
from ..paths.quadrature import gauss_legendre
from ..paths.two_sided import TwoSided
from .bridge import Share, multistep, row_between
from .extrapolation import run_of
from .step import Coefficients

__all__ = ["Pair", "TwoEnds"]

Fields = Callable[[Tensor, float], tuple[Tensor, Tensor]]
# z-hat is not looked for at times nearer to an end: it would be a rounding over a rounding
_AT_END = 1e-12
_NODES = 6


@dataclass(frozen=True)
class TwoEnds:
    """(T2): a transition between two densities; immutable, hashable.

    It is stepped by integrate() with the model for D and another for S (its other_end), which a
    Pair makes of one network that gives both.

    Attributes:
        path: The path.
        diffusion: How much noise is drawn.
        second_order: Whether earlier predictions are used.
        last: "denoised" or "extrapolated": what a second-order step to t = 0 is.
        held: S is the source itself, and D was made by a network that was told it.

    Raises:
        ValueError: A diffusion on a path without noise, or an unknown last step.

    Example:
        >>> from flowsearch.samplers.paths.two_sided import two_sided
        >>> between = TwoEnds(two_sided("linear", "brownian"), Diffusion("constant", 0.5))
        >>> row = between.coefficients(0.8, 0.4)
        >>> abs(row.past[0]) < 1e-12  # with the bridge's own noise S drops out
        True
    """

    path: TwoSided
    diffusion: Diffusion
    second_order: bool = False
    last: str = "denoised"
    held: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        self.diffusion.q(self.path, 0.75, 0.25)
        if self.last not in ("denoised", "extrapolated") or (
            self.last == "extrapolated" and not self.second_order
        ):
            raise ValueError(
                f"the last step of a bridge is {self.last!r}; choose denoised, or extrapolated "
                "with second order"
            )
        if self.held and not self.path.is_noisy:
            raise ValueError(
                f"from a source that is held the path {self.path.name} leads to one point, for it "
                "has no noise; choose a path with a gamma"
            )

    @property
    def memory(self) -> int:
        """How many earlier times a step uses."""
        return 2 if self.second_order else 0

    @property
    def guidance(self) -> None:
        """None: no gradient steers it."""
        return None

    def coefficients(
        self, sigma: float, sigma_next: float, past: Sequence[float] = ()
    ) -> Coefficients:
        """Compute the scalars of one step.

        Args:
            sigma: Time of the state, in [0, 1]; 1 is the source.
            sigma_next: Where it goes, in [0, 1]; below or above.
            past: Times of earlier predictions, newest first.

        Returns:
            The step's row; its earlier predictions are S, then D and S of each time of past.

        Raises:
            ValueError: A time outside [0, 1].
        """
        return _two_ends(self, float(sigma), float(sigma_next), tuple(map(float, past[:2])))

    def keeps(self, t: float, t_next: float) -> float:
        """Return q of a step: the diffusion's, but 0 from a source that is held."""
        if self.held and t == 1.0 and t_next < 1.0:
            return 0.0
        return self.diffusion.q(self.path, t, t_next)


@lru_cache(maxsize=4096)
def _two_ends(between: TwoEnds, t: float, t_next: float, past: tuple[float, ...]) -> Coefficients:
    path, q = between.path, between.keeps(t, t_next)
    gamma, gamma_next = path.gamma(t), path.gamma(t_next)
    known = min(t, 1.0 - t) > _AT_END and gamma > 0.0
    keep = q * gamma_next / gamma if known else 0.0
    if not path.is_noisy and 0.0 < t_next < 1.0:
        keep = 1.0  # what the ends leave of the state, by rounding or by a network's error, stays
    weights = (
        path.alpha(t_next) - keep * path.alpha(t),
        path.beta(t_next) - keep * path.beta(t),
    )
    noise = gamma_next * math.sqrt((1.0 - q) * (1.0 + q))
    earlier: list[tuple[float, float]] = []
    run = run_of(t, t_next, past)
    if between.second_order and run and t != t_next and t_next != 1.0:
        of_target, of_source = (
            multistep(_share(between, which), keep, t, t_next, run, between.last)
            for which in (0, 1)
        )
        if t_next == 0.0:
            of_source = tuple(0.0 for _ in of_target)
        earlier = list(zip(of_target, of_source, strict=True))
    return row_between(t, t_next, q, keep, weights, noise, earlier)


def _share(between: TwoEnds, which: int) -> Share:
    """Return share() of multistep() for one end.

    (b - a) alpha(b) + gamma(b) integral from b to a of q(u, b) alpha(u) / gamma(u) du
    """
    path, diffusion = between.path, between.diffusion
    end = (path.alpha, path.beta)[which]

    def share(start: float, stop: float) -> float:
        if path.is_noisy and min(start, 1.0 - start) <= _AT_END:
            return 0.0  # a step from an end was taken without z-hat and is not redone
        area = _areas(path, diffusion, start, stop)[which]
        return (stop - start) * end(stop) + _gamma(path, stop) * area

    return share


@lru_cache(maxsize=4096)
def _areas(path: TwoSided, diffusion: Diffusion, start: float, stop: float) -> tuple[float, float]:
    """Integrate q(u, stop) alpha / gamma and q beta / gamma from stop to start, in the log odds."""
    inside = (min(max(u, _AT_END), 1.0 - _AT_END) for u in (stop, start))
    near, far = (math.log(u / (1.0 - u)) for u in inside)
    panels = max(1, math.ceil(2.0 * abs(far - near)))
    half = 0.5 * (far - near) / panels
    of_target = of_source = 0.0
    before, kept = stop, 1.0
    for panel in range(panels):
        middle = near + (2 * panel + 1) * half
        for x, weight in reversed(gauss_legendre(_NODES)):  # outward from the step's end
            u = 1.0 / (1.0 + math.exp(-(middle + half * x)))
            kept *= diffusion.q(path, u, before)
            before = u
            share = half * weight * u * (1.0 - u) * kept / _gamma(path, u)
            of_target += share * path.alpha(u)
            of_source += share * path.beta(u)
    return of_target, of_source


def _gamma(path: TwoSided, t: float) -> float:
    return path.gamma(t) if path.is_noisy else 1.0  # states move by alpha' D + beta' S alone


class Pair:
    """Two models made of one network that gives both ends.

    Example:
        >>> import torch
        >>> pair = Pair(lambda x, t: (x - 1.0, x + 1.0))
        >>> x = torch.zeros(1)
        >>> pair.target(x, 0.5), pair.source(x, 0.5)
        (tensor([-1.]), tensor([1.]))
    """

    def __init__(self, fields: Fields) -> None:
        """Keep the network.

        Args:
            fields: fields(x, t) returns (D, S).
        """
        self._fields = fields
        self._seen: tuple[Tensor, float, Tensor] | None = None

    def target(self, x: Tensor, t: float) -> Tensor:
        """Return D; remembers S for source()."""
        denoised, source = self._fields(x, t)
        self._seen = (x, t, source)
        return denoised

    def source(self, x: Tensor, t: float) -> Tensor:
        """Return S, without a call where target() has just been asked at the same state."""
        if self._seen is not None and self._seen[0] is x and self._seen[1] == t:
            return self._seen[2]
        return self._fields(x, t)[1]
