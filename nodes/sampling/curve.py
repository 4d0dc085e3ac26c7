"""The host's CURVE as an input: a curve editor on the node, or a wire from the host's own.

The editor draws and stores points with x and y from 0 to 1. It works where the host draws nodes in
its newer way (Nodes 2.0); the older canvas shows a curve's name only, but runs what was stored.
"""

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...samplers.paths.curve import Curve
from ...samplers.paths.drawn_path import interpolant_from_curves
from ...samplers.paths.interpolant import Interpolant
from ..host.versions import CURVE_KINDS, HOST_CURVES, curve_input

__all__ = ["drawn_law", "drawn_path", "law_curve_input", "path_inputs", "read_curve"]


def law_curve_input() -> io.Curve.Input:
    """Describe the curve of a noise law.

    Returns:
        The input: full strength down to sigma 0.2, none below 0.12.
    """
    tooltip = (
        "Strength over sigma: left is sigma 0, the data, right is 1, the noise. Height, range 0 to "
        "1, times strength is k: at the bottom the ODE, higher more fresh noise."
    )
    return curve_input("curve", [(0.0, 0.0), (0.12, 0.0), (0.2, 1.0), (1.0, 1.0)], tooltip)


def path_inputs() -> list[io.Input]:
    """Describe the two curves of an interpolant.

    Returns:
        The inputs alpha and sigma: the linear path.
    """
    alpha = "How much of the picture is left: 1 at the left, the data, and 0 at the right, noise. "
    sigma = "How much noise there is: 0 at the left, the data, and up to 1 at the right. "
    both = "Range 0 to 1. Only sigma / alpha counts, and it must rise all the way."
    return [
        curve_input("alpha", [(0.0, 1.0), (1.0, 0.0)], alpha + both),
        curve_input("sigma", [(0.0, 0.0), (1.0, 1.0)], sigma + both),
    ]


def drawn_law(curve: Any, strength: float) -> dict[str, Any]:
    """Scale a drawn curve to a noise law's.

    Args:
        curve: What the host hands over; see read_curve().
        strength: k at the curve's height 1.

    Returns:
        points and interpolation, for noise_law().

    Raises:
        ValueError: No curve.
    """
    drawn = read_curve(curve)
    points = [(sigma, strength * height) for sigma, height in drawn.points]
    return {"points": points, "interpolation": drawn.interpolation}


def drawn_path(curves: Mapping[str, Any]) -> Interpolant:
    """Build the interpolant of two drawn curves.

    Args:
        curves: alpha and sigma, as the host hands them over; see read_curve().

    Returns:
        The interpolant.

    Raises:
        ValueError: No curves, or no path; see interpolant_from_curves().
    """
    return interpolant_from_curves(read_curve(curves["alpha"]), read_curve(curves["sigma"]))


def read_curve(value: Any) -> Curve:
    """Read what the host hands a node for a curve.

    Args:
        value: What the editor stores, {"points": [[x, y], ...], "interpolation": ...}; bare points,
            which the host reads as monotone_cubic; or the host's object, from a wire.

    Returns:
        The curve, with the host's values everywhere.

    Raises:
        ValueError: No curve, or a kind that has no points.
    """
    if isinstance(value, HOST_CURVES):
        if type(value) not in CURVE_KINDS:
            raise ValueError(
                f"a curve of the kind {type(value).__name__} is not known here; connect the "
                "host's Curve Editor"
            )
        return Curve.from_json({"points": value.points, "interpolation": CURVE_KINDS[type(value)]})
    return Curve.from_json(value if isinstance(value, dict) else {"points": value})
