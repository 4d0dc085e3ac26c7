"""How much of its noise does a state keep on the way from one sigma to another?

    q(sigma, sigma') = exp(-|integral of k d(log rho)|),    rho = sigma / (1 - sigma)

q is the correlation of the noise before and after: 1 keeps it (the ODE), 0 replaces it. k is the
diffusion of an SDE in units of the KL-optimal one (k = 1: the DDPM posterior), a function of rho
and so the same on every interpolant. A law is a k, or gives q itself (fixed_q, which is the limit
of no SDE). In terms of a diffusion eps on the linear path

    dx = (-v + eps score) dtau + sqrt(2 eps) dW,    tau = 1 - sigma,    k = eps (1 - sigma) / sigma.

The laws themselves are rows of law_table.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .curve import Curve, Point
from .law_table import NOISE_LAWS, LawSpec, Parameter, log_rho
from .quadrature import integrate_panels

__all__ = ["NOISE_LAWS", "LawSpec", "NoiseLaw", "Parameter", "noise_law"]

# below this sigma k has reached its limit at 0 for every law, or falls to 0 as the root at least
_TINY = 1e-300


@dataclass(frozen=True)
class NoiseLaw:
    """A noise law with its numbers; immutable, hashable, JSON both ways. Build it with noise_law().

    Attributes:
        name: Key of NOISE_LAWS.
        parameters: (name, value) pairs in the order of the table.
        taper: (start, stop): k is multiplied by a weight that is 1 down to sigma = start and falls
            linearly to 0 at sigma = stop; None for no taper.
        points: (sigma, k) pairs by rising sigma, for the curve only.
        interpolation: Key of INTERPOLATIONS (curve.py): how the curve runs between its points.

    Raises:
        ValueError: Anything not in the table or out of range.

    Example:
        >>> law = noise_law("constant_k", k=1.0)
        >>> round(law.q(0.8, 0.5), 6)
        0.25
        >>> NoiseLaw.from_json(law.to_json()) == law
        True
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()
    taper: tuple[float, float] | None = None
    points: tuple[Point, ...] = ()
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        """Refuse what the table does not allow."""
        if self.name not in NOISE_LAWS:
            known = ", ".join(NOISE_LAWS)
            raise ValueError(f"unknown noise law {self.name!r}; choose one of: {known}")
        _check_parameters(self)
        _check_points(self)
        _check_taper(self)

    @property
    def spec(self) -> LawSpec:
        """The law's row of NOISE_LAWS."""
        return NOISE_LAWS[self.name]

    @property
    def curve(self) -> Curve:
        """The strength k over sigma, of a law that takes points."""
        return _curve(self.points, self.interpolation)

    def __getitem__(self, parameter: str) -> float:
        """Return the value of a parameter."""
        return dict(self.parameters)[parameter]

    @property
    def kinks(self) -> tuple[float, ...]:
        """Sigmas at which k is not smooth, rising."""
        own = () if self.spec.knots is None else self.spec.knots(self)
        return tuple(sorted({*own, *(self.taper or ())}))

    def k(self, sigma: float) -> float:
        """Return the diffusion strength relative to the KL-optimal one.

        Args:
            sigma: Linear sigma, 0 < sigma <= 1.

        Returns:
            k >= 0.

        Raises:
            ValueError: sigma out of range, or a law that gives q itself.
        """
        if self.spec.k is None:
            raise ValueError(
                f"{self.name} states q for each transition and is the limit of no SDE, so it has "
                "no k; use constant_k or curve"
            )
        if not 0.0 < sigma <= 1.0:
            raise ValueError(f"k is defined for 0 < sigma <= 1, not at sigma {sigma}")
        return self.spec.k(self, sigma) * self._weight(sigma)

    def diffusion(self, sigma: float) -> float:
        """Return eps on the linear path, k sigma / (1 - sigma), as an SDE's drift needs it.

        Args:
            sigma: Linear sigma, 0 < sigma <= 1.

        Returns:
            eps >= 0; infinite at sigma = 1 if k(1) > 0.

        Raises:
            ValueError: sigma out of range, or a law that gives q itself.
        """
        k = self.k(sigma)
        if self.spec.diffusion is not None:
            return self.spec.diffusion(self, sigma) * self._weight(sigma)
        if sigma == 1.0:
            return math.inf if k > 0.0 else self._slope_at_noise()
        return k * sigma / (1.0 - sigma)

    def q(self, sigma: float, sigma_next: float) -> float:
        """Return the correlation of the noise kept between two sigmas, in either direction.

        Args:
            sigma: Linear sigma in [0, 1].
            sigma_next: Linear sigma in [0, 1].

        Returns:
            q in [0, 1]. 0 from sigma = 0 upward, where there is no noise to keep, and to or from
            sigma = 1 when k(1) > 0, because rho is infinite there; 1 between equal sigmas (of an
            SDE; a fixed q replaces noise in place).

        Raises:
            ValueError: A sigma outside [0, 1].
        """
        for value in (sigma, sigma_next):
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"sigma {value} is outside [0, 1], the range of a flow model; "
                    "models of other types (SD1.5, SDXL) are not supported"
                )
        if sigma == 0.0:
            return 0.0 if sigma_next > 0.0 else 1.0
        if self.spec.k is None:
            return self["q"]
        return math.exp(-self._decay(min(sigma, sigma_next), max(sigma, sigma_next)))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        out: dict[str, Any] = {"name": self.name, "parameters": dict(self.parameters)}
        if self.taper is not None:
            out["taper"] = list(self.taper)
        if self.points:
            out |= self.curve.to_json()
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "NoiseLaw":
        """Build a law from what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The law.

        Raises:
            ValueError: An unknown key, name, parameter or a value out of range.
        """
        keys = ("name", "parameters", "taper", "points", "interpolation")
        if not {"name"} <= set(data) <= set(keys):
            raise ValueError(f"a noise law has the keys {', '.join(keys)}; got {sorted(data)}")
        return noise_law(
            data["name"],
            taper=data.get("taper"),
            points=data.get("points"),
            interpolation=data.get("interpolation", "linear"),
            **data.get("parameters", {}),
        )

    def _weight(self, sigma: float) -> float:
        if self.taper is None:
            return 1.0
        start, stop = self.taper
        return min(1.0, max(0.0, (sigma - stop) / (start - stop)))

    def _slope_at_noise(self) -> float:
        """Limit of k sigma / (1 - sigma) at sigma = 1 for a k that falls linearly to 0 there."""
        step = 2.0**-20
        return self.k(1.0 - step) / step

    def _decay(self, low: float, high: float) -> float:
        """Integrate k d(log rho) from sigma low to high."""
        if low == high:
            return 0.0
        if (low == 0.0 and self.k(_TINY) > math.sqrt(_TINY)) or (high == 1.0 and self.k(1.0) > 0.0):
            return math.inf
        untapered = self.taper is None or low >= self.taper[0]
        if untapered and self.spec.decay is not None:
            return self.spec.decay(self, low, high)
        ends = [low, *(s for s in self.kinks if low < s < high), high]
        return integrate_panels(
            lambda y: self.k(1.0 / (1.0 + math.exp(-y))), [log_rho(s) for s in ends]
        )


@lru_cache(maxsize=16)
def _curve(points: tuple[Point, ...], interpolation: str) -> Curve:
    """Keep a law's curve, whose slopes are computed once, between the calls of k."""
    return Curve(points, interpolation)


def noise_law(
    name: str,
    *,
    taper: Sequence[float] | None = None,
    points: Sequence[Sequence[float]] | None = None,
    interpolation: str = "linear",
    **parameters: float,
) -> NoiseLaw:
    """Build a noise law; parameters left out take the table's defaults.

    Args:
        name: Key of NOISE_LAWS.
        taper: (start, stop) with start > stop, see NoiseLaw.
        points: (sigma, k) pairs, for the curve only.
        interpolation: How the curve runs between its points: linear or monotone_cubic.
        **parameters: The law's numbers; a name not in the table is refused.

    Returns:
        The law.

    Raises:
        ValueError: Unknown name or parameter, or a value out of range.

    Example:
        >>> noise_law("fixed_q", q=0.7).q(1.0, 0.2)
        0.7
        >>> noise_law("curve", points=[(0.0, 0.0), (1.0, 2.0)]).k(0.25)
        0.5
    """
    if name not in NOISE_LAWS:
        known = ", ".join(NOISE_LAWS)
        raise ValueError(f"unknown noise law {name!r}; choose one of: {known}")
    table = NOISE_LAWS[name].parameters
    unknown = set(parameters) - set(table)
    if unknown:
        raise ValueError(
            f"noise law {name} has no parameter {', '.join(sorted(unknown))}; "
            f"it takes: {', '.join(table) or 'none'}"
        )
    values = tuple((key, float(parameters.get(key, table[key].default))) for key in table)
    if taper is not None and len(taper) != 2:
        raise ValueError(f"a taper is two sigmas (start, stop), not {tuple(taper)}")
    bad = [p for p in points or () if len(p) != 2]
    if bad:
        raise ValueError(f"a point is a pair (sigma, k), not {tuple(bad[0])}")
    return NoiseLaw(
        name,
        values,
        None if taper is None else (float(taper[0]), float(taper[1])),
        tuple(sorted((float(p[0]), float(p[1])) for p in points or ())),
        interpolation,
    )


def _check_parameters(law: NoiseLaw) -> None:
    table = law.spec.parameters
    if tuple(key for key, _ in law.parameters) != tuple(table):
        raise ValueError(
            f"noise law {law.name} takes the parameters {tuple(table)}, not {law.parameters}"
        )
    for key, value in law.parameters:
        entry = table[key]
        if not entry.low <= value <= entry.high:
            raise ValueError(
                f"{key} = {value} of noise law {law.name} must be between {entry.low} and "
                f"{entry.high}"
            )


def _check_points(law: NoiseLaw) -> None:
    if law.spec.takes_points != bool(law.points):
        rule = "needs points (sigma, k)" if law.spec.takes_points else "takes no points"
        raise ValueError(f"noise law {law.name} {rule}; got {law.points}")
    if not law.points and law.interpolation != "linear":
        raise ValueError(f"noise law {law.name} has no points, so it takes no interpolation")
    for s, k in law.curve.points if law.points else ():
        if k < 0.0:
            raise ValueError(f"point ({s}, {k}) of a noise law: the strength k must be 0 or above")


def _check_taper(law: NoiseLaw) -> None:
    if law.taper is None:
        return
    start, stop = law.taper
    if not 0.0 <= stop < start <= 1.0:
        raise ValueError(f"taper ({start}, {stop}) must satisfy 0 <= stop < start <= 1")
    if law.spec.k is None:
        raise ValueError(
            f"a taper scales k, and {law.name} has none; drop the taper or use constant_k"
        )
