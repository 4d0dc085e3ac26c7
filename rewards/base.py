"""What a reward is: a number per picture, clip or sound, higher is better, closed over its prompt.

Any object with ``spec`` and ``score`` is a reward, whoever wrote it; nothing has to inherit from
anything here. The module holds the protocol, the description every reward carries, what a reward
may say beside its value, and the one check that all of them make on their input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from .foreign import settings_kept, values_of
from .paid import answered_once

__all__ = [
    "Annotator",
    "Assessed",
    "Assessment",
    "Explained",
    "Reward",
    "RewardSpec",
    "Views",
    "assess",
    "check_audio",
    "check_clips",
    "check_images",
    "describe",
    "models_of",
    "named",
    "spec_of",
]


@dataclass(frozen=True)
class RewardSpec:
    """Description of a reward, for reports, for combining rewards and for choosing a target.

    Args:
        name: Short id, lower-case snake case.
        measures: One sentence: what a higher value means.
        low: Lowest possible value, or -inf.
        high: Highest possible value, or +inf.
        quantum: Smallest difference between two different values, 0 for a continuous reward.
        scale: Typical difference between a good and a poor picture of one prompt, in the reward's
            unit, by which Combine Rewards divides; 0 where nothing is known.
        input_size: Height and width the reward was made for, or None when any size will do.
        domain: "image" for pictures (B, H, W, C), "video" for clips (B, T, H, W, C), "audio" for
            waveforms (B, channels, samples) of about -1 to 1, "latent" for latents (B, C, ...);
            "several" for a combination whose members score different ones: see Views.
        sample_rate: Of "audio", samples a second that the reward wants; 0 for as decoded.
        paid: Whether a score may cost money: it is then never asked for twice, not even to find out
            which of several pictures a failure is about.
        deterministic: Whether the same pictures always get the same values.
        has_gradient: Whether the value can be differentiated with respect to the pictures.
        licence: Licence of the weights, or of the code where there are no weights.
        source: Where the weights or the rule come from.
        sha256: Digest of the weights' file where it is known, else empty.

    Example:
        >>> RewardSpec("redness", "how red it is", -1.0, 1.0).domain
        'image'
    """

    name: str
    measures: str
    low: float
    high: float
    quantum: float = 0.0
    scale: float = 0.0
    input_size: tuple[int, int] | None = None
    domain: str = "image"
    sample_rate: int = 0
    paid: bool = False
    deterministic: bool = True
    has_gradient: bool = False
    licence: str = "MIT"
    source: str = "FlowSearch"
    sha256: str = ""


@runtime_checkable
class Reward(Protocol):
    """Scores pictures.

    Example:
        >>> from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity
        >>> isinstance(ShapeFidelity(), Reward)
        True
    """

    @property
    def spec(self) -> RewardSpec:
        """What the value means."""
        ...

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), floating point, 0 to 1, red-green-blue; clips, waveforms
                or latents for a reward whose spec says so. B may be 0.

        Returns:
            Shape (B,), float32, on the pictures' device, higher is better.
        """
        ...


class Views(Protocol):
    """The same rows in every form that rewards score: for a reward of the domain "several"."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def of(self, spec: RewardSpec) -> Tensor | Views:
        """Return the rows as a reward is given them.

        Args:
            spec: The reward's.

        Returns:
            A tensor of its domain; this object for "several".
        """
        ...


@dataclass(frozen=True)
class Assessment:
    """Values with what they are made of.

    Attributes:
        values: Shape (B,), float32.
        parts: For each picture, terms of its value by name: counts, answers' probabilities, the
            members of a combination. Empty dicts where there are none.
        notes: For each picture, a line for people: what was read, counted or said. May be empty.

    Example:
        >>> Assessment(torch.tensor([2.0]), [{"circles": 2.0}], ["two circles"]).notes
        ['two circles']
    """

    values: Tensor
    parts: Sequence[Mapping[str, float]] = field(default_factory=tuple[Mapping[str, float], ...])
    notes: Sequence[str] = field(default_factory=tuple[str, ...])


@runtime_checkable
class Explained(Protocol):
    """A reward that can say what its values are made of; `score` is then `assess(...).values`."""

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures and say why.

        Args:
            images: As for score.

        Returns:
            The values, with one entry of parts and notes a picture where there are any.
        """
        ...


class Assessed(ABC):
    """What a reward of this pack that is Explained inherits: its score is its assessment's.

    Example:
        >>> class Half(Assessed):
        ...     def assess(self, images):
        ...         return Assessment(torch.full((len(images),), 0.5))
        >>> Half().score(torch.rand(2, 8, 8, 3))
        tensor([0.5000, 0.5000])
    """

    @abstractmethod
    def assess(self, images: Tensor) -> Assessment:
        """See Explained.assess."""

    def score(self, images: Tensor) -> Tensor:
        """See Reward.score; raises what assess raises."""
        return self.assess(images).values


@runtime_checkable
class Annotator(Protocol):
    """A reward that can show on a picture what it saw, such as boxes."""

    def draw(self, images: Tensor) -> Tensor:
        """Draw on copies of pictures.

        Args:
            images: As for score.

        Returns:
            Pictures of the same shape.
        """
        ...


def assess(reward: Reward, images: Tensor | Views) -> Assessment:
    """Score pictures by any reward, with what it says of its values, if it says anything.

    Args:
        reward: A reward, explained or not.
        images: As for Reward.score, or Views where the reward's domain is "several".

    Returns:
        Its values, and as many parts and notes as there are pictures.

    Raises:
        ValueError: It returned another number of values or explanations than of pictures, or what
            is no number.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> assess(ImageStatistic("brightness"), torch.full((1, 8, 8, 3), 0.25)).values
        tensor([0.2500])
    """
    if spec_of(reward).paid:
        rows = answered_once(reward, images, lambda some: _rows(_assess(reward, some)))
        if rows is not None:
            return Assessment(*rows)
    return _assess(reward, images)


def _rows(found: Assessment) -> tuple[Tensor, Sequence[Mapping[str, float]], Sequence[str]]:
    return found.values, found.parts, found.notes


def _assess(reward: Reward, images: Tensor | Views) -> Assessment:
    given = cast("Tensor", images)
    with settings_kept():
        found = reward.assess(given) if isinstance(reward, Explained) else None
        returned = reward.score(given) if found is None else getattr(found, "values", found)
    count = len(images)
    values = values_of(returned, count)
    parts = getattr(found, "parts", ()) or [{} for _ in range(count)]
    notes = getattr(found, "notes", ()) or [""] * count
    if len(parts) != count or len(notes) != count:
        raise ValueError(f"it explained {len(parts)} and {len(notes)} of {count} pictures")
    return Assessment(values, parts, notes)


def spec_of(reward: object) -> RewardSpec:
    """Return the full description of a reward, whoever wrote it.

    Args:
        reward: An object with `score` and a `spec`; the spec is a RewardSpec, or any object with
            a name and those other attributes of RewardSpec that its writer knows of.

    Returns:
        Its description. What is not said: any value may occur, in any step, of pictures.

    Raises:
        ValueError: It has no score, or no spec with a name.

    Example:
        >>> from types import SimpleNamespace
        >>> redness = SimpleNamespace(spec=SimpleNamespace(name="redness"), score=len)
        >>> spec_of(redness).high
        inf
    """
    spec = getattr(reward, "spec", None)
    if isinstance(spec, RewardSpec):
        return spec
    names = [f.name for f in fields(RewardSpec)]
    known: dict[str, Any] = {n: getattr(spec, n) for n in names if hasattr(spec, n)}
    if not known.get("name") or not callable(getattr(reward, "score", None)):
        raise ValueError(
            f"a reward is an object with score(images) and a spec with a name; given was a "
            f"{type(reward).__name__}. Connect the output of a reward node."
        )
    unsaid: dict[str, Any] = {"measures": known["name"], "low": -float("inf"), "high": float("inf")}
    return RewardSpec(**{**unsaid, **known})


def named(rewards: Iterable[Reward]) -> dict[str, Reward]:
    """Give each of several rewards a name of its own.

    Args:
        rewards: Any number.

    Returns:
        The name in its spec to reward, in order; "name 2" for the second of a name.

    Example:
        >>> from flowsearch.rewards.latent import LatentReward
        >>> [*named([LatentReward("mean"), LatentReward("std")])]
        ['latent', 'latent 2']
    """
    seen: Counter[str] = Counter()
    found: dict[str, Reward] = {}
    for reward in rewards:
        name = spec_of(reward).name
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} {seen[name]}"] = reward
    return found


def models_of(reward: object) -> list[Any]:
    """Return what a memory manager knows a reward's networks by.

    Args:
        reward: Any; it says so by `get_models()`, or by `patcher` for a single one.

    Returns:
        Nothing for a reward that says nothing.

    Example:
        >>> models_of(object())
        []
    """
    models = getattr(reward, "get_models", None)
    if callable(models):
        return [*cast("Sequence[Any]", models())]
    return [getattr(reward, "patcher")] if hasattr(reward, "patcher") else []  # noqa: B009


def describe(spec: RewardSpec) -> dict[str, Any]:
    """Write a spec as JSON can hold it.

    Args:
        spec: Any.

    Returns:
        Its fields; infinite bounds as None.

    Example:
        >>> describe(RewardSpec("redness", "how red it is", -1.0, float("inf")))["high"] is None
        True
    """
    fields: dict[str, Any] = dict(vars(spec))
    for bound in ("low", "high"):
        fields[bound] = None if abs(fields[bound]) == float("inf") else fields[bound]
    return fields


def check_images(images: Tensor, name: str) -> None:
    """Refuse what is not a batch of finite pictures.

    Args:
        images: Candidate input of a reward. An empty batch is one.
        name: The reward's name, for the message.

    Raises:
        ValueError: Wrong rank, wrong channel count, no pixels, not floating point, or not finite.

    Example:
        >>> check_images(torch.rand(2, 8, 8, 3), "redness")
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[-1] not in (3, 4) or 0 in shape[1:]:
        raise ValueError(
            f"{name} was given images of shape {shape}; it needs (batch, height, width, 3 or 4). "
            "Connect the IMAGE output of a VAE Decode."
        )
    _check_values(images, name, "images", "picture", " from 0 to 1. Divide 8-bit values by 255")


def check_clips(clips: Tensor, name: str) -> None:
    """Refuse what is not a batch of finite clips.

    Args:
        clips: Candidate input of a reward of domain "video". An empty batch is one.
        name: The reward's name, for the message.

    Raises:
        ValueError: Wrong rank, wrong channel count, no frames, not floating point, or not finite.

    Example:
        >>> check_clips(torch.rand(2, 5, 8, 8, 3), "motion")
    """
    shape = tuple(clips.shape)
    if clips.ndim != 5 or shape[-1] not in (3, 4) or 0 in shape[1:]:
        raise ValueError(
            f"{name} was given clips of shape {shape}; it needs (batch, frames, height, width, 3 "
            "or 4). Connect it to a search of a video model, or to Score Images."
        )
    _check_values(clips, name, "clips", "clip", " from 0 to 1. Divide 8-bit values by 255")


def check_audio(waveforms: Tensor, name: str) -> None:
    """Refuse what is not a batch of finite waveforms.

    Args:
        waveforms: Candidate input of a reward of domain "audio". An empty batch is one.
        name: The reward's name, for the message.

    Raises:
        ValueError: Wrong rank, no channels or samples, not floating point, or not finite.

    Example:
        >>> check_audio(torch.rand(2, 2, 100), "loudness")
    """
    shape = tuple(waveforms.shape)
    if waveforms.ndim != 3 or 0 in shape[1:]:
        raise ValueError(
            f"{name} was given sound of shape {shape}; it needs (batch, channels, samples). "
            "Connect it to a search of a model of sound."
        )
    _check_values(waveforms, name, "sound", "sound", " from -1 to 1")


def _check_values(values: Tensor, name: str, what: str, one: str, wanted: str) -> None:
    """Refuse values of another type, and such as are not finite, by the row they are in."""
    if not torch.is_floating_point(values):
        raise ValueError(
            f"{name} was given {what} of type {values.dtype}; it needs floating point values"
            f"{wanted}."
        )
    if not values.numel():
        return
    # both ends are NaN where anything is; a row is looked for only then, which takes 20 times as
    # long
    if not bool(torch.isfinite(torch.stack(torch.aminmax(values.detach()))).all()):
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name}: {one} {bad} of {values.shape[0]} holds values that are not finite. The model "
            "or the VAE overflowed: try another dtype for it, or fewer guidance patches."
        )
