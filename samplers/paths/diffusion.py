"""How much noise does a bridge's SDE draw on its way?

    q(t, t') = exp(-|integral of eps / gamma^2 dt|)

is the correlation between z-hat = (x - alpha D - beta S) / gamma before and after a step, for
frozen ends D and S, in either direction of time: 1 keeps the noise (eps = 0, the ODE), 0 draws it
anew. Any eps(t) >= 0 has the same densities. Where gamma vanishes the integral diverges unless eps
does too, and then q = 0: nothing of the noise is left to be kept.

The Brownian bridge of scale s is the SDE with eps = s^2 / 2, for which q is the square root of
t' (1 - t) / (t (1 - t')) downward.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .curve import Curve
from .law_table import log_rho
from .quadrature import integrate_panels
from .two_sided import TwoSided

__all__ = ["DIFFUSIONS", "Diffusion", "DiffusionSpec"]

LARGEST = 1000.0
# the integrand of one that converges falls at least tenfold between these distances from an end
_NEAR, _NEARER = 1e-6, 1e-12
# log of t / (1 - t) beyond which it has vanished, and 1 - t is still a number
_FAR = 30.0


@dataclass(frozen=True)
class DiffusionSpec:
    """A row of DIFFUSIONS.

    Attributes:
        summary: One sentence for users.
        eps: eps(diffusion, path, t).
        takes_curve: Whether it is given by a curve.

    Example:
        >>> DIFFUSIONS["curve"].takes_curve
        True
    """

    summary: str
    eps: "Callable[[Diffusion, TwoSided, float], float]"
    takes_curve: bool = False


@dataclass(frozen=True)
class Diffusion:
    """A diffusion eps(t) of a bridge's SDE; immutable, hashable, JSON both ways.

    Attributes:
        name: Key of DIFFUSIONS.
        value: Its number, 0 to 1000.
        curve: eps over t, for the curve only.

    Raises:
        ValueError: An unknown name, a number out of range, a curve missing, too much or below 0.

    Example:
        >>> from flowsearch.samplers.paths.two_sided import two_sided
        >>> round(Diffusion("constant", 0.5).q(two_sided("linear", "brownian"), 0.8, 0.5), 6)
        0.5
    """

    name: str = "none"
    value: float = 0.0
    curve: Curve | None = None

    def __post_init__(self) -> None:
        """Refuse what the table does not allow."""
        if self.name not in DIFFUSIONS:
            raise ValueError(
                f"unknown diffusion {self.name!r}; choose one of: {', '.join(DIFFUSIONS)}"
            )
        if not 0.0 <= self.value <= LARGEST:
            raise ValueError(
                f"the number of the diffusion {self.name} is {self.value}; it must be between 0 "
                f"and {LARGEST:g}"
            )
        if DIFFUSIONS[self.name].takes_curve != (self.curve is not None):
            rule = "needs a curve" if self.curve is None else "takes no curve"
            raise ValueError(f"the diffusion {self.name} {rule}; the curve is eps over t")
        for t, eps in self.curve.points if self.curve else ():
            if eps < 0.0:
                raise ValueError(f"point ({t}, {eps}) of a diffusion: eps must be 0 or above")

    @property
    def draws(self) -> bool:
        """Whether eps is anything but 0."""
        if self.curve is not None:
            return any(eps > 0.0 for _, eps in self.curve.points)
        return self.name != "none" and self.value > 0.0

    def eps(self, path: TwoSided, t: float) -> float:
        """Return eps(t).

        Args:
            path: The path.
            t: Time in [0, 1].

        Returns:
            eps >= 0.
        """
        return DIFFUSIONS[self.name].eps(self, path, t)

    def q(self, path: TwoSided, t: float, t_next: float) -> float:
        """Return the correlation of the noise kept between two times, in either direction.

        Args:
            path: The path.
            t: Time in [0, 1].
            t_next: Time in [0, 1].

        Returns:
            q in [0, 1].

        Raises:
            ValueError: A time outside [0, 1], or a diffusion on a path without noise.
        """
        for value in (t, t_next):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"time {value} is outside [0, 1]; 1 is the source, 0 the target")
        if not self.draws or t == t_next:
            return 1.0
        if not path.is_noisy:
            raise ValueError(
                f"the path {path.name} has no noise, so the diffusion {self.name} has nothing to "
                "act on; choose the diffusion none, or a path with a gamma"
            )
        low, high = min(t, t_next), max(t, t_next)
        if (low == 0.0 and self._diverges(path, False)) or (
            high == 1.0 and self._diverges(path, True)
        ):
            return 0.0
        knots = [x for x, _ in self.curve.points] if self.curve else []
        ends = [low, *(x for x in knots if low < x < high), high]
        odds = [max(-_FAR, min(_FAR, log_rho(x))) for x in ends]
        return math.exp(
            -integrate_panels(lambda y: self._rate(path, 1.0 / (1.0 + math.exp(-y))), odds)
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        out: dict[str, Any] = {"name": self.name, "value": self.value}
        return out if self.curve is None else out | {"curve": self.curve.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Diffusion":
        """Build a diffusion from what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The diffusion.

        Raises:
            ValueError: An unknown key or value.
        """
        if not {"name"} <= set(data) <= {"name", "value", "curve"}:
            raise ValueError(f"a diffusion has the keys name, value, curve; got {sorted(data)}")
        curve = data.get("curve")
        drawn = None if curve is None else Curve.from_json(curve)
        return cls(data["name"], float(data.get("value", 0.0)), drawn)

    def _rate(self, path: TwoSided, t: float) -> float:
        """Return -d log q / d log(t / (1 - t))."""
        return self.eps(path, t) * t * (1.0 - t) / path.gamma(t) ** 2

    def _diverges(self, path: TwoSided, at_source: bool) -> bool:
        places = (1.0 - _NEAR, 1.0 - _NEARER) if at_source else (_NEAR, _NEARER)
        far, near = (self._rate(path, t) for t in places)
        return near > 0.1 * far


def _drawn(diffusion: Diffusion, _path: TwoSided, t: float) -> float:
    return 0.0 if diffusion.curve is None else diffusion.curve(t)


DIFFUSIONS: dict[str, DiffusionSpec] = {
    "none": DiffusionSpec("no noise: the probability flow", lambda _d, _path, _t: 0.0),
    "constant": DiffusionSpec(
        "the same at every time, for a Brownian gamma; near the ends of others, whose gamma "
        "vanishes faster, it needs very short steps",
        lambda d, _path, _t: d.value,
    ),
    "gamma": DiffusionSpec("in proportion to gamma", lambda d, path, t: d.value * path.gamma(t)),
    "variance": DiffusionSpec(
        "in proportion to gamma^2, so that noise is lost evenly in time",
        lambda d, path, t: d.value * path.gamma(t) ** 2,
    ),
    "curve": DiffusionSpec("drawn through points (t, eps)", _drawn, takes_curve=True),
}
