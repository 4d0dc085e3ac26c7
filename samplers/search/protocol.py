"""What is a search made of? Handles, moves, and the three parties: strategy, engine, problem.

A strategy is a generator over handles: it yields a request (a list of moves), is sent one node per
move, and returns its winners. It never sees a tensor. A problem knows the model and the reward. The
engine stands between them: tensors, chunks, the ledger, finishing, checkpoints.

One evaluation does double duty: the prediction at a candidate's sigma scores it and drives its next
transition.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..stepping.transition import Transition
from .recombination import Mix

__all__ = [
    "Checkpoint",
    "DecodeError",
    "ModelError",
    "Move",
    "Node",
    "Problem",
    "Request",
    "RewardError",
    "Scores",
    "Spec",
    "State",
    "Stop",
    "Strategy",
    "Whole",
]

State = dict[str, Tensor]
"""Row-first tensors: x (linear coordinates), denoised (D at x's sigma), and what a problem adds."""


@dataclass(frozen=True, eq=False)
class Node:
    """A handle of one candidate; compared by identity. Its tensors live while it does.

    Attributes:
        id: Number within its item, in the order of evaluation.
        item: Batch item it belongs to.
        sigma: Where it is; 0 is finished.
        parent: id of the node it was drawn from; None for a start.
        score: Its reward, higher is better; None if its move did not ask for one.
        log_weight: Of the draw that led here: log of the density that was wanted over the one drawn
            from; 0 unless a twist moved the draw.

    Example:
        >>> Node(id=3, item=0, sigma=0.5, parent=1, score=2.0).sigma
        0.5
    """

    id: int
    item: int
    sigma: float
    parent: int | None
    score: float | None
    log_weight: float = 0.0


@dataclass(frozen=True)
class Whole:
    """Run the connected stock sampler from the first sigma to 0; only whole-run strategies can.

    Attributes:
        name: The sampler's name, for messages and checkpoints. The problem holds the sampler.
        sigmas: Falling sigmas to run it on, the last one 0; empty for the run's own.

    Example:
        >>> Whole("euler").to_json()["whole"]
        'euler'
    """

    name: str
    sigmas: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that names this transition in reports."""
        return {"whole": self.name, **({"sigmas": list(self.sigmas)} if self.sigmas else {})}


@dataclass(frozen=True)
class Move:
    """One draw: from a node, or from nothing, to a sigma.

    Attributes:
        parent: Node to draw from; None starts at `to`, with Whole at the first sigma.
        to: Any sigma, below, equal to or above the parent's; 0 finishes.
        key: What makes this draw's noise its own: (step, candidate, ...). The engine adds item,
            chain and pass. Drawing twice with one key is an error.
        transition: How; None is the connected sampler's.
        score: Whether to score the prediction at `to`.
        donor: For a Mix: the node whose differences from the parent are taken.

    Example:
        >>> Move(None, to=1.0, key=(0, 2)).score  # a start, whose prediction is scored
        True
    """

    parent: Node | None
    to: float
    key: tuple[int, ...]
    transition: Transition | Whole | Mix | None = None
    score: bool = True
    donor: Node | None = None


@dataclass(frozen=True)
class Scores:
    """A picture's rewards.

    Attributes:
        value: What is searched for, higher is better, finite.
        parts: Terms of the value, by name, for reports.
        held_out: Rewards that are reported and never used, by name: a number, or why there is none.
        held_out_seconds: What they took, beside the time that the search is charged.
        thumbnail: Anything a panel can show; not kept beyond the event.
        note: What the reward says of it to people, for reports; empty for nothing.

    Example:
        >>> Scores.from_json(Scores(0.5, {"count": 2.0}).to_json()).parts
        {'count': 2.0}
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    held_out: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    held_out_seconds: float = 0.0
    thumbnail: object = None
    note: str = ""

    def kept(self) -> "Scores":
        """Return what outlives the event: all but the thumbnail."""
        return replace(self, parts=dict(self.parts), held_out=dict(self.held_out), thumbnail=None)

    def to_json(self) -> dict[str, Any]:
        """Return the rewards as JSON types, without the thumbnail."""
        return {
            "value": self.value,
            "parts": dict(self.parts),
            "note": self.note,
            "held_out": dict(self.held_out),
            "held_out_seconds": self.held_out_seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scores":
        """Read what to_json() returned; what is absent takes its default, TypeError if unknown."""
        return cls(**data)


@dataclass(frozen=True)
class Request:
    """Moves that are computed and charged together, or not at all.

    Attributes:
        chain: Chain that asks; -1 for plain samples.
        pass_: The chain's pass.
        phase: "plain", "calibrate" (plain samples of other starts), "search", "finish" or "target"
            (finishing a handle that reached the target).
        moves: The moves, transitions filled in.
        keys: The moves' full keys.
        finishes: Handles that are being finished, aligned with the moves; empty otherwise.
    """

    chain: int
    pass_: int
    phase: str
    moves: list[Move]
    keys: list[tuple[int, ...]]
    finishes: tuple[int, ...] = ()


class Stop(Exception):
    """Thrown into a strategy at its yield; it may return winners, but not ask again.

    Attributes:
        why: "budget", "rows", "reward_calls", "seconds", "target" or what a person's stop said.
    """

    def __init__(self, why: str) -> None:
        """Keep the reason."""
        super().__init__(why)
        self.why = why


class RewardError(RuntimeError):
    """A reward raised, or returned something that is no finite number."""


class ModelError(RuntimeError):
    """The model, or a patch of it, failed, or predicted something that is no finite number."""


class DecodeError(RuntimeError):
    """A picture could not be decoded; raised by a problem's score(), and no fault of the reward."""


class Spec(Protocol):
    """What a strategy knows of its run."""

    @property
    def item(self) -> int:
        """Batch item."""
        ...

    @property
    def chain(self) -> int:
        """This chain, from 0."""
        ...

    @property
    def chains(self) -> int:
        """Number of chains."""
        ...

    @property
    def pass_(self) -> int:
        """How many passes this chain has completed."""
        ...

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The run's sigmas, falling, the last one 0."""
        ...

    @property
    def transition(self) -> Transition | Whole:
        """The connected sampler's transition."""
        ...

    @property
    def sample_cost(self) -> int:
        """Evaluations of one ordinary sample, start to 0."""
        ...

    def remaining(self) -> int:
        """Return the evaluations this chain may still ask for, finishing already subtracted."""
        ...

    def cost(self, moves: Sequence[Move]) -> int:
        """Return the evaluations that a request of these moves takes."""
        ...

    def path(self, sigma: float) -> tuple[float, ...]:
        """Return the sigmas by which a node at sigma is finished, ending with 0."""
        ...

    def finish_cost(self, sigma: float) -> int:
        """Return the evaluations that finish a handle at sigma."""
        ...

    def finished_score(self, node: Node) -> float | None:
        """Return the score of the picture that came of finishing a node; None if it was not."""
        ...

    def random(self, *key: int) -> Random:
        """Return a generator that is a pure function of seed, item, chain, pass and key."""
        ...

    def plain(self) -> list[Node]:
        """Return the plain sample's nodes before a first pass's first request, else nothing."""
        ...

    def best(self) -> Node | None:
        """Return the best finished node of the item so far, of equals the newest."""
        ...

    @property
    def plain_scores(self) -> tuple[float, ...]:
        """The finished rewards of the item's plain samples: the first, and those that calibrate."""
        ...

    def choose(
        self, nodes: Sequence[Node], why: str, weights: Sequence[float] | None = None
    ) -> None:
        """Report which nodes go on, and why."""
        ...


class Strategy(Protocol):
    """A frozen dataclass of settings that can be turned to JSON and back."""

    name: ClassVar[str]

    @property
    def plain(self) -> bool:
        """Whether the run first takes the plain sample of the seed."""
        ...

    @property
    def finish_steps(self) -> int | None:
        """ODE steps from a winner to 0; None follows the run's sigmas, 1 jumps to D."""
        ...

    @property
    def score_below(self) -> float:
        """Predictions above this sigma are not scored in the plain sample."""
        ...

    @property
    def target_stop(self) -> bool:
        """Whether a finished picture that reaches the target ends the run."""
        ...

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Refuse what cannot help.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's transition.

        Raises:
            ValueError: With the reason and the remedy.
        """
        ...

    def search(self, spec: Spec) -> Generator[list[Move], list[Node], list[Node]]:
        """Search one pass of one chain; yield requests, return the winners best first."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        ...


class Problem(Protocol):
    """The model and the reward. `items` gives each row's batch item.

    Where shares_calls is False all rows of a call have the same item. move() and predict() may add
    the keys "evaluations" and "rows" to the state, one number a row: what was measured, when it
    differs from cost(); the engine takes them out.

    A problem whose attribute has_gradient is True is given guided transitions, too: its move()
    hands a gradient source to moved(), which adds "gradients" and "log_weight" likewise. One that
    has no such attribute never sees one.
    """

    @property
    def shares_calls(self) -> bool:
        """Whether rows of several items may share a call."""
        ...

    @property
    def parts(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the latents that lie one after another in a row; empty for one latent."""
        ...

    @property
    def reward_name(self) -> str:
        """Name of the reward, for messages."""
        ...

    @property
    def reward_paid(self) -> bool:
        """Whether a score may cost money, so that none is asked for twice."""
        ...

    @property
    def interrupts(self) -> tuple[type[BaseException], ...]:
        """Exceptions that mean a cancel, not a failure; they always pass unchanged."""
        ...

    def identity(self, item: int) -> int:
        """Return a 64-bit key of the item's own initial noise (samplers.noise.row_key)."""
        ...

    def noise(
        self, seed: int, items: Sequence[int], keys: Sequence[tuple[int, ...]]
    ) -> Mapping[str, Tensor]:
        """Return purpose -> standard normal rows, drawn when looked up.

        Purposes are "start", "move" and "mix" (others belong to the problem). Key () is the plain
        sample's start, the item's own initial noise; (i,) is the plain sample's step i.
        """
        ...

    def start(self, items: Sequence[int], to: float, noise: Mapping[str, Tensor]) -> State:
        """Return x = (1 - to) L + to z and denoised = L, with L the item's latent."""
        ...

    def move(
        self,
        items: Sequence[int],
        state: State,
        sigma_from: float,
        to: float,
        transition: Transition | Whole,
        noise: Mapping[str, Tensor],
    ) -> State:
        """Return the state at `to`; its denoised, if any, is replaced by predict()."""
        ...

    def predict(self, items: Sequence[int], state: State, sigma: float) -> State:
        """Return the state with denoised = D(x, sigma). Never called at sigma 0."""
        ...

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        """Score clean latents, one Scores a row; sigma 0 marks finished. May raise DecodeError."""
        ...

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """Return the evaluations of a draw that arrives at `to`, predict() included.

        None is a start: 1 if to > 0. An ordinary transition: (to > 0) plus its inner calls.
        """
        ...


class Checkpoint(Protocol):
    """Where a run is kept; the engine writes no files."""

    def save(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Keep both, replacing what was there, all or nothing."""
        ...

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept, or None; raise kept.Unreadable where it is not to be used."""
        ...
