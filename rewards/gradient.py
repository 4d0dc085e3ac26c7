"""How would a reward's value change with every number of what it scores? The door to gradients.

    gradient[b] = d value(rows[b]) / d rows[b]

A reward that has one says `has_gradient` in its spec. Either it has a method `gradient`, or its
`score` is made of operations that autograd follows; `gradient_of` asks both kinds, and is what
everybody else calls. What a row gives depends on that row alone, so one backward pass of the sum
serves a batch.

The host runs nodes in inference mode, where nothing can be differentiated, and what is made there
cannot be saved for a backward pass. All that is here works from there, and leaves the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors

from .base import Reward, RewardSpec, Views, spec_of
from .foreign import settings_kept, values_of
from .weights.holder import Holder, backward_ready, dtype_of, widened

__all__ = [
    "Differentiable",
    "Gradient",
    "gradient_of",
    "holder_gradient",
    "require_gradient",
    "value_and_gradient",
    "why_no_gradient",
]

SCALES = (2.0**16, 2.0**8, 1.0)
"""What a value is multiplied by before it goes back through a network of float16, whose smallest
number is 6e-8: the largest with which nothing overflows."""


@dataclass(frozen=True)
class Gradient:
    """Values of rows, and how they change with the rows.

    Attributes:
        values: Shape (B,), float32, or float64 where all was computed in it. They are those that
            were differentiated: score's but for what rounding of pictures to 8 bits does, or those
            of the smooth stand-in of a reward that goes in steps.
        gradient: Like the rows; of a reward of the domain "several" by domain, for each that its
            members score.

    Example:
        >>> Gradient(torch.zeros(2), torch.zeros(2, 8, 8, 3)).values
        tensor([0., 0.])
    """

    values: Tensor
    gradient: Tensor | Mapping[str, Tensor]


@runtime_checkable
class Differentiable(Protocol):
    """A reward that has a way of its own to its gradient."""

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate each row's value with respect to that row.

        Args:
            images: As for Reward.score.

        Returns:
            Values and gradient.
        """
        ...


def gradient_of(reward: Reward, images: Tensor | Views) -> Gradient:
    """Differentiate any reward, and check what it returns.

    Args:
        reward: One whose spec says has_gradient, whoever wrote it.
        images: As for Reward.score, or Views where the reward's domain is "several".

    Returns:
        Values and gradient, not part of any graph, made outside inference mode.

    Raises:
        ValueError: It has no gradient; or it returned something else, of another shape, type or
            place than what it was given, or not finite.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> found = gradient_of(ImageStatistic("brightness"), torch.full((1, 2, 2, 3), 0.25))
        >>> round(float(found.gradient.sum()), 5)
        1.0
    """
    spec = spec_of(reward)
    require_gradient(reward)
    with torch.inference_mode(False), settings_kept():
        given = _saved(images) if isinstance(images, Tensor) else images
        if isinstance(reward, Differentiable):
            found = reward.gradient(cast("Tensor", given))
        else:
            found = value_and_gradient(reward.score, cast("Tensor", given))
        return _checked(found, given, spec)


def require_gradient(reward: Reward) -> None:
    """Refuse a reward that has no gradient.

    Args:
        reward: Any.

    Raises:
        ValueError: It has none; says why, and which have one.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> require_gradient(ImageStatistic("brightness"))
    """
    if why := why_no_gradient(reward):
        raise ValueError(
            f"{spec_of(reward).name} has no gradient: {why}. Use it in a search without guidance, "
            "or choose a reward that has one, such as CLIP Score, Image Statistic or Layout Reward "
            "(docs/REWARDS.md lists them)."
        )


def why_no_gradient(reward: Reward) -> str:
    """Say why a reward cannot be differentiated.

    Args:
        reward: Any; one that can say why has a method of this name, without arguments.

    Returns:
        What to read after "has no gradient: ", without a stop; "" where it has one.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> why_no_gradient(ImageStatistic("brightness"))
        ''
    """
    if spec_of(reward).has_gradient:
        return ""
    own = getattr(reward, "why_no_gradient", None)
    said = str(own()) if callable(own) else ""
    return said or "it cannot say how a picture should change for a higher value"


def value_and_gradient(function: Callable[[Tensor], Tensor], rows: Tensor) -> Gradient:
    """Differentiate a function that autograd follows.

    Args:
        function: Rows -> one value a row, shape (B,), each of its own row alone.
        rows: Shape (B, ...), floating point; B may be 0, which calls nothing.

    Returns:
        Values and gradient.

    Raises:
        ValueError: Rows of whole numbers, another number of values than of rows, or values that
            autograd does not lead back to the rows.

    Example:
        >>> value_and_gradient(lambda x: x.square().sum(dim=1), torch.tensor([[1.0, 2.0]])).gradient
        tensor([[2., 4.]])
    """
    return _differentiated(function, rows, (1.0,))


def holder_gradient(
    holder: Holder[Any],
    function: Callable[[Any, Tensor], Tensor],
    rows: Tensor,
    *,
    mutates: bool = False,
) -> Gradient:
    """Differentiate a function of a network, within each of its holder's batches.

    What a backward pass keeps is freed batch by batch, and a holder's ways (fewer rows where memory
    runs out, a cancel in between) stay as they are. The network is left as it was.

    Args:
        holder: Keeps the network.
        function: (network, rows) -> one value a row, as for Holder.run.
        rows: Shape (B, ...), floating point; B may be 0, which calls nothing.
        mutates: Whether the network writes into what it computed before, as the host's do; what a
            backward pass needs of that is copied.

    Returns:
        Values and gradient, on the rows' device.

    Raises:
        ValueError: As value_and_gradient.

    Example:
        >>> from flowsearch.rewards.weights.holder import Local
        >>> holder = Local(torch.nn.Linear(2, 1))
        >>> found = holder_gradient(holder, lambda net, x: net(x)[:, 0], torch.rand(3, 2))
        >>> bool((found.gradient == holder.network.weight).all())
        True
    """

    kinds: set[torch.dtype] = set()  # rows of float64 do not make values finer than they are

    def run(network: Any, piece: Tensor) -> Tensor:  # noqa: ANN401 - whatever the holder keeps
        scales = SCALES if dtype_of(network) is torch.float16 else (1.0,)
        copies = allow_mutation_on_saved_tensors() if mutates else nullcontext()
        with torch.inference_mode(False), backward_ready(network), copies:
            found = _differentiated(lambda given: function(network, given), piece, scales)
        kinds.add(found.values.dtype)
        return torch.cat([found.values[:, None], cast("Tensor", found.gradient).flatten(1)], dim=1)

    if not rows.shape[0]:
        return _nothing(rows)
    found = holder.run(run, rows)
    values = found[:, 0].to(torch.float64 if kinds == {torch.float64} else torch.float32)
    return Gradient(values, found[:, 1:].reshape(rows.shape).to(rows.dtype))


def _differentiated(
    function: Callable[[Tensor], Tensor], rows: Tensor, scales: tuple[float, ...]
) -> Gradient:
    """One pass there, and one back by the first scale with which nothing overflows."""
    if not rows.is_floating_point():
        raise ValueError(
            f"rows of type {rows.dtype} have no gradient; give floating point values, such as "
            "pictures from 0 to 1"
        )
    if not rows.shape[0]:
        return _nothing(rows)
    with torch.inference_mode(False), torch.enable_grad():
        given = _saved(rows).requires_grad_()
        values = values_of(function(given), len(rows))
        if not values.requires_grad:
            raise ValueError(
                "the values do not depend on the rows by operations that autograd follows, so they "
                "have no gradient; compute them without detach, numpy, round or no_grad"
            )
        total = widened(values).sum()
        found = torch.zeros_like(given)
        for scale in scales:
            one = torch.full_like(total, scale)
            (found,) = torch.autograd.grad(
                total, given, one, retain_graph=scale != scales[-1], materialize_grads=True
            )
            if bool(found.isfinite().all()):
                found = found / scale if scale != 1.0 else found
                break
    return Gradient(widened(values.detach()), found)


def _saved(rows: Tensor) -> Tensor:
    """The same values, apart from any graph, as a backward pass can save them."""
    return rows.clone() if rows.is_inference() else rows.detach()


def _nothing(rows: Tensor) -> Gradient:
    with torch.inference_mode(False):
        return Gradient(rows.new_zeros(0, dtype=torch.float32), torch.zeros_like(rows))


def _checked(found: object, given: Tensor | Views, spec: RewardSpec) -> Gradient:
    """Refuse what is no gradient of these rows."""
    if not isinstance(found, Gradient):
        raise ValueError(
            f"the gradient of {spec.name} is an object of the class {type(found).__name__}; return "
            "a Gradient (rewards/gradient.py): values and gradient"
        )
    values = values_of(found.values, len(given)).detach()
    _finite(values, spec.name, "value")
    if isinstance(given, Tensor):
        if not isinstance(found.gradient, Tensor):
            raise ValueError(
                f"the gradient of {spec.name} is an object of the class "
                f"{type(found.gradient).__name__}; return a tensor like what was scored"
            )
        return Gradient(values, _like(found.gradient, given, spec.name))
    if not isinstance(found.gradient, Mapping):
        raise ValueError(
            f"the gradient of {spec.name} is an object of the class "
            f"{type(found.gradient).__name__}; a reward of several domains returns one by domain"
        )
    for domain, part in found.gradient.items():
        if len(part) != len(given):
            raise ValueError(
                f"the gradient of {spec.name} with respect to '{domain}' has {len(part)} rows for "
                f"{len(given)} that were scored; return one a row"
            )
        _finite(part, f"{spec.name} ({domain})", "gradient")
    return Gradient(values, {name: part.detach() for name, part in found.gradient.items()})


def _like(gradient: Tensor, given: Tensor, name: str) -> Tensor:
    """Refuse a gradient of another shape, type or place than the rows."""
    for what, has, wanted in (
        ("shape", tuple(gradient.shape), tuple(given.shape)),
        ("type", gradient.dtype, given.dtype),
        ("device", gradient.device, given.device),
    ):
        if has != wanted:
            raise ValueError(
                f"the gradient of {name} has {what} {has} for rows of {what} {wanted}; return one "
                "number for every number of the rows, where and as they are"
            )
    _finite(gradient, name, "gradient")
    return gradient.detach()


def _finite(numbers: Tensor, name: str, what: str) -> None:
    finite = numbers[..., None].isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(
            f"the {what} of {name} is not finite for row {row} of {len(numbers)}: it divides by "
            "what is 0 there, or its network overflowed. Use it without guidance, or in float32."
        )
