"""How does a search run? Rounds over all items, until each is over; checkpoints on the way.

    settings = SearchSettings(RolloverBudgetForcing(), sigmas, transition, Budget(500), seed=7)
    outcome = Search(problem, settings).run()
    picture = outcome.items[0].winners[0].state["x"]

Or event by event, as far as one likes, and further:

    search = Search(problem, settings)
    for event in search:
        if isinstance(event, Finished) and event.best:
            show(search.best(event.item))
            break
    outcome = search.run()

A cancel passes at once and unchanged. An error ends the search of its item only: the others go on
to their end, then it is raised. Either leaves the best finished pictures and the checkpoint behind.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..account.events import Event, Started
from ..protocol import Checkpoint, Move, Problem, Request, State, Whole
from .checkpoint import Kept, Unreadable, kept_of
from .execution import Executor, Faults, Job, Result, clean_of
from .item import ItemSearch, Rounds
from .ledger import Ledger
from .plan import Plan
from .record import Diverged
from .settings import SearchSettings
from .winner import Winner

__all__ = ["ItemOutcome", "Outcome", "Search", "Winner"]

CONTINUED = (
    "a search with another budget or target is continued, which is not the same as having started "
    "with this one"
)

_LOG = logging.getLogger("flowsearch")


@dataclass(frozen=True)
class ItemOutcome:
    """What came of one item.

    Attributes:
        item: Batch item.
        winners: Finished pictures, best first.
        plain: The plain sample's finished picture, the baseline; None if it was not taken.
        ledger: What was spent.
        why: Why it ended; "" if it was interrupted.
    """

    item: int
    winners: list[Winner]
    plain: Winner | None
    ledger: Ledger
    why: str


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        items: One outcome an item, in the order given.
        calls: Calls of the model, this process's.
        chunks: (calls made, rows_per_call) whenever it was set.
        notes: Sentences for the report: what was continued, or why it started afresh.
    """

    items: list[ItemOutcome]
    calls: int
    chunks: list[tuple[int, int]]
    notes: list[str]


@dataclass
class _Waiting:
    """An item whose requests are to be computed."""

    item: ItemSearch
    rounds: Rounds
    requests: list[Request]


class Search:
    """A run of a strategy on a problem: an iterator over its events.

    Between two events nothing is computed, and everything is consistent: best() and outcome() tell
    what there is, stop() and close() may be called. A loop that is left goes on with the next one,
    or with run(). The seconds of a budget go on, too.

    Example:
        >>> from flowsearch.samplers.search import BestOfN, Budget, SearchSettings
        >>> from flowsearch.samplers.search.testing import MixtureProblem
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> settings = SearchSettings(BestOfN(), (1.0, 0.6, 0.3, 0.0), ODE, Budget(30), seed=7)
        >>> search = Search(MixtureProblem(), settings)
        >>> for event in search:  # one event after another, as far as one likes
        ...     if event.kind == "finished" and event.best:
        ...         break
        >>> search.best(event.item).node.id == event.id
        True
        >>> item = search.run().items[0]  # and to the end
        >>> item.ledger.evaluations, item.why
        (30, 'budget')
        >>> item.winners[0].scores.value > item.plain.scores.value
        True
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        on_event: Callable[[Event], None] | None = None,
        checkpoint: Checkpoint | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is computed before run().

        Args:
            problem: Model and reward.
            settings: What is searched, how, and for how long.
            on_event: Called with each event, at request boundaries.
            checkpoint: Where the run is kept and taken up again.
            clock: Seconds, for the budget and the checkpoints.
        """
        self.settings = settings
        self.plan = Plan(problem, settings)
        self.notes: list[str] = []
        self._executor = self._fresh_executor()
        self._on_event = on_event
        self._checkpoint = checkpoint
        self._clock = clock
        self._elapsed_before = 0.0
        self._begun = self._saved_at = 0.0
        self._stop_reason: str | None = None
        self._faults: Faults = {}
        self._at_boundary = False
        self._is_new = True  # whether no log of an earlier process is being followed
        self._unsaved: set[str] = set()
        self._items: list[ItemSearch] = self._fresh_items()
        self._events = self._tell()
        self._runs = False

    def stop(self, why: str = "keep the best now") -> None:
        """End the search at the next boundary; what is finished comes out.

        Args:
            why: The reason, for the report.
        """
        self._stop_reason = why

    def best(self, item: int) -> Winner | None:
        """Return an item's best finished picture so far; also after an interrupt."""
        winners = self._items[self.settings.items.index(item)].gallery.winners
        return winners[0] if winners else None

    @property
    def elapsed_before(self) -> float:
        """Seconds of the earlier runs that this one went on from; 0 for none."""
        return self._elapsed_before

    def outcome(self) -> Outcome:
        """Return what there is so far; run() returns the same when it is over."""
        items = [
            ItemOutcome(
                item.index,
                [*item.gallery.winners],
                item.gallery.plain,
                item.spending.ledger,
                item.why,
            )
            for item in self._items
        ]
        notes = [*self.notes]
        for item in self._items:
            place = f"item {item.index}: " if len(self._items) > 1 else ""
            notes += [place + sentence for sentence in item.baseline.notes.values()]
        return Outcome(items, self._executor.calls, [*self._executor.plan], notes)

    def __iter__(self) -> "Search":
        """Return itself: one run, whose events are told once."""
        return self

    def __next__(self) -> Event:
        """Compute until something happened that was not told yet.

        Returns:
            The event, after on_event was called with it.

        Raises:
            RewardError: A reward raised or was not finite; the best so far is kept.
            ModelError: A prediction was not finite; likewise.
            DecodeError: A picture could not be decoded; likewise.
        """
        event = next(self._events)
        if self._on_event is not None:
            self._on_event(event)
        return event

    def run(self) -> Outcome:
        """Search until every item is over.

        Returns:
            The finished pictures, best first, and what they took.

        Raises:
            RewardError: A reward raised or was not finite; the best so far is kept.
            ModelError: A prediction was not finite; likewise.
            DecodeError: A picture could not be decoded; likewise.
        """
        try:
            for _ in self:
                pass
        finally:
            self.close()
        return self.outcome()

    def close(self) -> None:
        """Leave the search where it is, its checkpoint written; what is finished is still there."""
        if self._runs:
            self._runs = False
            self._save_after_failure()
        self._events.close()

    # ---- rounds ----

    @torch.no_grad()
    def _tell(self) -> Generator[Event, None, None]:
        """Search, and yield what happens; the mode of gradients is the caller's in between."""
        self._begun = self._saved_at = self._clock()
        self._runs = True
        try:
            yield from self._whole_run()
        except GeneratorExit:
            raise
        except BaseException:
            self._runs = False
            self._save_after_failure()
            raise
        self._runs = False
        self._try_to_save()

    def _whole_run(self) -> Iterator[Event]:
        try:
            self._load()
            yield from self._rounds()
        except Diverged as reason:
            self._start_afresh(str(reason))
            yield from self._rounds()
        except self.plan.problem.interrupts:
            raise
        except Exception as error:
            if self._is_new:
                raise
            # nothing but the log was read so far
            why = f"the checkpoint's log cannot be followed ({type(error).__name__}: {error})"
            self._start_afresh(why)
            yield from self._rounds()

    def _rounds(self) -> Iterator[Event]:
        budget = self.settings.budget.to_json()
        yield Started(self.plan.to_json(), budget, " ".join(self.notes))
        waiting = self._begin()
        while True:
            yield from self._boundary()
            if not waiting:
                break
            self._is_new = True
            waiting, results = self._compute(waiting)
            waiting = self._advance(waiting, results)
        for fault in self._faults.values():
            raise fault

    def _begin(self) -> list[_Waiting]:
        """Let each item come to its first request that no log answers; return those that ask."""
        waiting: list[_Waiting] = []
        for item in self._items:
            rounds = item.rounds()
            requests = next(rounds, None)
            if requests is not None:
                waiting.append(_Waiting(item, rounds, requests))
        return waiting

    def _compute(
        self, waiting: Sequence[_Waiting]
    ) -> tuple[list[_Waiting], list[list[list[Result]]]]:
        """Compute all requests; return the items without a fault and [item][request][move]."""
        jobs = [
            job
            for each in waiting
            for request in each.requests
            for job in self._jobs(each.item, request)
        ]
        found, faults = self._executor.run(jobs)
        for item in self._items:
            item.spending.ledger.reward_calls += self._executor.repeated.pop(item.index, 0)
        for item, fault in faults.items():
            self._faults[item] = fault
            self.notes.append(f"item {item} ended with an error: {fault}")
            _LOG.error("search: %s", self.notes[-1])
        left = [each for each in waiting if each.item.index not in faults]
        results = iter(
            result
            for job, result in zip(jobs, found, strict=True)
            if job.item not in faults and result is not None
        )
        return left, [
            [[next(results) for _ in request.moves] for request in each.requests] for each in left
        ]

    def _jobs(self, item: ItemSearch, request: Request) -> list[Job]:
        first = self.settings.sigmas[0]
        return [
            Job(
                item=item.index,
                sigma_from=_sigma_from(move),
                to=move.to,
                at=first if isinstance(move.transition, Whole) else move.to,
                transition=move.transition,
                key=key,
                state=_start_of(item, move),
                score=move.score,
                cost=self.plan.price(move),
            )
            for move, key in zip(request.moves, request.keys, strict=True)
        ]

    def _advance(
        self, waiting: list[_Waiting], results: list[list[list[Result]]]
    ) -> list[_Waiting]:
        """Send each item its results; return those that ask again."""
        self._at_boundary = False
        seconds = self.settings.budget.seconds
        late = seconds is not None and self._elapsed() >= seconds
        again: list[_Waiting] = []
        waiting.reverse()
        results.reverse()
        while waiting:
            each = waiting.pop()
            each.item.stop_now = self._stop_reason or ("seconds" if late else None)
            each.requests = []
            try:
                each.requests = each.rounds.send(results.pop())
            except StopIteration:
                continue
            again.append(each)
        return again

    def _boundary(self) -> Iterator[Event]:
        """Between requests: everything is consistent. Tell what happened; save now and then."""
        self._at_boundary = True
        for item in self._items:
            yield from item.take_events()
        if self._checkpoint and self._clock() - self._saved_at >= self.settings.checkpoint_seconds:
            self._try_to_save()

    def _elapsed(self) -> float:
        return self._elapsed_before + self._clock() - self._begun

    # ---- checkpoint ----

    def _fresh_items(self) -> list[ItemSearch]:
        keep = self._checkpoint is not None
        return [ItemSearch(self.plan, item, keep) for item in self.settings.items]

    def _fresh_executor(self) -> Executor:
        settings = self.settings
        return Executor(self.plan.problem, settings.seed, settings.rows_per_call)

    def _start_afresh(self, why: str) -> None:
        self.notes = [note for note in self.notes if note != CONTINUED]
        self.notes.append(f"{why}; the search starts afresh")
        _LOG.warning("search: %s", self.notes[-1])
        self._faults = {}
        self._items = self._fresh_items()
        self._elapsed_before = 0.0
        self._executor = self._fresh_executor()
        self._is_new = True

    def _load(self) -> None:
        """Take up a run that was kept, if it is whole and its settings are this run's."""
        try:
            found = self._checkpoint.load() if self._checkpoint is not None else None
            kept = None if found is None else kept_of(*found, self.settings.items)
        except Unreadable as reason:
            self._start_afresh(f"the checkpoint is not used, because {reason}")
            return
        if kept is None:
            return
        mine = self.plan.to_json()
        changed = sorted(key for key in mine if mine[key] != kept.settings.get(key))
        if changed:
            self._start_afresh(f"the checkpoint was made with another {', '.join(changed)}")
            return
        if kept.budget != self.settings.budget:
            self.notes.append(CONTINUED)
        self._take_up(kept)

    def _take_up(self, kept: Kept) -> None:
        self._elapsed_before = kept.elapsed
        self._executor.rows_per_call = kept.rows_per_call
        self._executor.scores_per_call = kept.scores_per_call
        self._executor.plan = [(0, kept.rows_per_call)]
        self._is_new = False
        for place, item in enumerate(self._items):
            item.lineages.load(item.index, kept.tensors, kept.lineages[place])
            item.replay(kept.logs[place], kept.states(item.index))

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors: dict[str, Tensor] = {}
        for item in self._items:
            for node, state in item.tensors.items():
                for key, value in state.items():
                    tensors[f"{item.index}/{node.id}/{key}"] = value.detach().clone()
        kept = Kept(
            settings=self.plan.to_json(),
            budget=self.settings.budget,
            elapsed=self._elapsed(),
            rows_per_call=self._executor.rows_per_call,
            scores_per_call=self._executor.scores_per_call,
            logs=[item.script.written() for item in self._items],
            lineages=[item.lineages.save(item.index, tensors) for item in self._items],
            tensors=tensors,
        )
        self._checkpoint.save(tensors, kept.to_json())
        self._saved_at = self._clock()

    def _save_after_failure(self) -> None:
        """Save if the last boundary is intact; never hide what went wrong."""
        if self._at_boundary:
            self._try_to_save()

    def _try_to_save(self) -> None:
        """Save; a full disk neither ends a search nor hides why it did. Each kind is said once."""
        try:
            self._save()
        except Exception as error:  # noqa: BLE001 - the search is worth more than its checkpoint
            self._saved_at = self._clock()
            kind = f"{type(error).__name__} {getattr(error, 'errno', None) or ''}".strip()
            if kind not in self._unsaved:
                self._unsaved.add(kind)
                _LOG.warning(
                    "search: the checkpoint could not be written (%s: %s); the search goes on, and "
                    "should it be interrupted it goes on from an earlier state or from its start",
                    type(error).__name__,
                    " ".join(str(error).split())[:300],
                )


def _sigma_from(move: Move) -> float | None:
    """Return the sigma a move steps from; a mix steps from the clean latents."""
    if move.parent is None:
        return None
    return 0.0 if move.donor is not None else move.parent.sigma


def _start_of(item: ItemSearch, move: Move) -> State | None:
    """Return the tensors a move starts from."""
    if move.parent is None:
        return None
    state = item.state_of(move.parent)
    if move.donor is None:
        return state
    donor = clean_of(item.state_of(move.donor), move.donor.sigma)
    return {"x": clean_of(state, move.parent.sigma), "donor": donor}
