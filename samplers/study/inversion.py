"""Which noise gives these data? Lists of sigmas for the way up, and a scheme that can be undone.

Inversion is the transition (T) of transition.py with rising sigmas; integrate.py does it. What is
special is where it starts. At sigma 0 the noise is undefined, so the way begins at FLOOR, with the
state that the model was trained on there,

    x = (1 - FLOOR) x0 + FLOOR z,    z standard normal, drawn from a seed.

Without z the flat parts of a picture have no noise to grow: over 16 drawn scenes of the embedded
model the noise found then has a standard deviation of .48 instead of .97, and the median scene
comes back with an error (rms) of .16 instead of .011 (benchmarks/inversion.py).

The second half of this module is an integrator of the ODE that is undone exactly, whatever the
error of the model or of the steps: the explicit midpoint rule, which carries two states,

    x_next = x_before + (sigma_next - sigma_before) v(x),    v = (x - D) / sigma

and, solved for x_before, is the same formula with the list reversed. One call a step, second order
on lists whose steps change smoothly. It is BDIA with gamma = 0 (Zhang, Lewis, Kleijn 2023,
arXiv:2307.10829), on the linear path, where no direction of the data, and so no rounding error,
grows or shrinks by more than 1 / FLOOR. Weights that keep the second order on uneven lists (O-BELM,
Wang et al. 2024, arXiv:2410.07273) multiply the error by the square of the longest step over the
shortest; damped coupling (McCallum, Foster 2024, arXiv:2410.11648) takes two calls, and damps one
direction by as much as it makes the other grow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

__all__ = ["CEILING", "FLOOR", "Reversible", "mirror", "rising", "to_data", "to_noise"]

FLOOR = 0.02
CEILING = 0.9999  # the host hands x / (1 - sigma) on, which is infinite at 1
APART = 1.1  # sigmas nearer to the floor than this factor are left out

Model = Callable[[Tensor, float], Tensor]
Watch = Callable[[int, Tensor, Tensor], None]


def rising(sigmas: Sequence[float], lowest: float = FLOOR, highest: float = CEILING) -> list[float]:
    """List the sigmas of the way from data to noise.

    Args:
        sigmas: A sampler's list, falling or rising, in any coordinates; at least two.
        lowest: Where the way begins, in the same coordinates; what lies below is left out.
        highest: Where it ends if the list goes beyond.

    Returns:
        Rising sigmas, the first `lowest`.

    Raises:
        ValueError: Fewer than two sigmas, a list that turns or repeats a sigma, or one that ends
            below `lowest`.
    """
    listed = [float(s) for s in sigmas]
    if len(listed) > 1 and listed[0] > listed[-1]:
        listed.reverse()
    if len(listed) < 2 or any(b <= a for a, b in pairwise(listed)):
        raise ValueError(
            f"inversion needs at least two sigmas that only fall or only rise, got {listed}; "
            "connect the list of the sampler that is to go on from the noise"
        )
    top = min(listed[-1], highest)
    if top <= lowest * APART:
        raise ValueError(
            f"the sigmas end at {top:.4g}, and inversion begins at {lowest:.4g}, below which there "
            "is no noise to be found; connect a list that reaches further up"
        )
    return [lowest, *(s for s in listed if lowest * APART < s < top), top]


def mirror(
    sigma: float, steps: int, k: float, lowest: float = FLOOR
) -> tuple[list[float], list[float]]:
    """List the sigmas of a way up to a sigma and back to data, evenly spaced.

    Carried along them by the transition with constant k, Gaussian data of standard deviation S come
    back with

        corr(in, out) = (alpha^2 S^2 / (alpha^2 S^2 + sigma^2))^k,    alpha = 1 - sigma

    and their own law: the mirror interpolant x0 + gamma(t) z of Albergo, Boffi, Vanden-Eijnden
    2023, arXiv:2303.08797, definition 3.6, on a one-sided model. At k = 1 the way up is noising
    for whatever the model predicts, so that it begins at sigma itself and costs no evaluation.

    Args:
        sigma: Where to turn, linear.
        steps: Steps of each way, at least 1.
        k: Strength of the noise, at least 0.
        lowest: Where the way up begins.

    Returns:
        Rising sigmas to `sigma`, one only at k = 1, and falling ones from `sigma` to 0.

    Raises:
        ValueError: A number out of range.
    """
    if steps < 1 or not lowest * APART < sigma < 1.0 or k < 0.0:
        raise ValueError(
            f"a variation needs steps >= 1, k >= 0 and a sigma between {lowest * APART:.3g} (no "
            f"noise) and 1 (pure noise); got steps {steps}, sigma {sigma}, k {k}"
        )
    up = [lowest + (sigma - lowest) * i / steps for i in range(steps)]
    down = [sigma * (steps - i) / steps for i in range(1, steps + 1)]
    return [*([] if k == 1.0 else up), sigma], [sigma, *down]


@dataclass(frozen=True, eq=False)
class Reversible:
    """What to_data() needs to undo to_noise().

    Attributes:
        newest: States at the last sigma, in linear coordinates: the ODE's, for any sampler.
        previous: States at the last sigma but one.
        residual: What the prediction at the first sigma lacked of the data.
    """

    newest: Tensor
    previous: Tensor
    residual: Tensor


def to_noise(
    model: Model, x: Tensor, clean: Tensor, sigmas: Sequence[float], watch: Watch | None = None
) -> Reversible:
    """Carry data up along the ODE so that to_data() can undo it.

    Args:
        model: model(x, sigma) returns the prediction D, all in linear coordinates.
        x: States at sigmas[0], shape (B, C, *S).
        clean: The data themselves, like x.
        sigmas: N + 1 rising linear sigmas above 0.
        watch: watch(i, x, D), called after each of the N predictions.

    Returns:
        The pair of states and the residual.
    """
    denoised = model(x, sigmas[0])
    if watch is not None:
        watch(0, x, denoised)
    first = x + (x - denoised) * ((sigmas[1] - sigmas[0]) / sigmas[0])
    newest, previous = _two_step(model, first, x, sigmas, watch, 1)
    return Reversible(newest, previous, clean - denoised)


def to_data(
    model: Model, state: Reversible, sigmas: Sequence[float], watch: Watch | None = None
) -> Tensor:
    """Undo to_noise(), or go down from its states with another model (another prompt).

    The residual is what lets the data come back although the last step, from sigmas[0] to 0, is a
    prediction; of another model's prediction it changes only what the first could not see.

    Args:
        model: As in to_noise().
        state: What that returned.
        sigmas: The same rising list.
        watch: watch(i, x, D), called after each of the N predictions.

    Returns:
        Data, like the clean data of to_noise().
    """
    falling = sigmas[::-1]
    x, _ = _two_step(model, state.previous, state.newest, falling, watch, 0)
    denoised = model(x, sigmas[0])
    if watch is not None:
        watch(len(sigmas) - 2, x, denoised)
    return denoised + state.residual


def _two_step(
    model: Model,
    x: Tensor,
    before: Tensor,
    sigmas: Sequence[float],
    watch: Watch | None,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Carry states at sigmas[1] and sigmas[0] to the end; return the last and the one before."""
    triples = zip(sigmas, sigmas[1:], sigmas[2:], strict=False)
    for i, (last, sigma, sigma_next) in enumerate(triples, first):
        denoised = model(x, sigma)
        if watch is not None:
            watch(i, x, denoised)
        x, before = before + (x - denoised) * ((sigma_next - last) / sigma), x
    return x, before
