"""What holds of every strategy? It is run on the exact small problem of mixture.py.

A strategy decides by scores, what remains and its keyed random numbers, and by nothing else. From
that follow the laws: it repeats, it can be interrupted anywhere, and it is no business of its own
what is computed together.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from types import FrameType
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ...stepping.guidance import Guidance
from ...stepping.transition import ODE, Transition, fixed_q
from .. import (
    Budget,
    Checkpoint,
    Event,
    Move,
    Node,
    Outcome,
    Problem,
    RewardError,
    Search,
    SearchSettings,
    Spec,
    Stop,
    Strategy,
    Trace,
    Whole,
)
from .mixture import (
    SIGMAS,
    Interrupted,
    MemoryCheckpoint,
    MixtureProblem,
    rare_mode_gradient,
)

__all__ = ["StrategyLaws", "Watched", "told"]

_BUDGETS = (1, 2, 3, 5, 8, 10, 11, 12, 17, 29, 60, 97)
_FEW = [1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.0]
_HUGE = 3e38  # nearly the largest number of float32, which is what a reward may give

_GUIDANCES = (
    Guidance("noise_tilt", 0.5, "network", start=0.95),
    Guidance("mean_shift", 0.5, look_ahead=1),
)


class StrategyLaws:
    """Tests of one strategy. A subclass gives it by a fixture; the laws are the methods.

    Attributes:
        interrupts: At how many calls of the model, and of the reward, a run is interrupted.
    """

    interrupts = 3

    @pytest.fixture
    def strategy(self) -> Strategy:
        """Override: return the strategy."""
        raise NotImplementedError("override the fixture strategy: return the strategy to be tested")

    @pytest.fixture
    def transition(self) -> Transition | Whole:
        """Return the connected sampler's transition; override where an ODE is refused."""
        return ODE

    @pytest.fixture
    def budget(self) -> Budget:
        """Return the budget of runs that are repeated, interrupted and continued; override."""
        return Budget(60)

    @pytest.fixture
    def chains(self) -> int:
        """Return the chains of those runs; override."""
        return 1

    @pytest.fixture
    def search(
        self, strategy: Strategy, transition: Transition | Whole, budget: Budget, chains: int
    ) -> Callable[..., Search]:
        """Return a function that sets a small run up; keywords change it."""

        def make(
            problem: Problem | None = None,
            sigmas: Sequence[float] = _FEW,
            on_event: Callable[[Event], None] | None = None,
            checkpoint: Checkpoint | None = None,
            **changes: Any,  # noqa: ANN401 - SearchSettings checks them
        ) -> Search:
            given: dict[str, Any] = {
                "strategy": strategy,
                "transition": transition,
                "budget": budget,
                "chains": chains,
                "seed": 5,
                "rows_per_call": 3,
                "top_k": 2,
                "checkpoint_seconds": 0.0,
                **changes,
            }
            settings = SearchSettings(sigmas=tuple(sigmas), **given)
            return Search(problem or MixtureProblem(), settings, on_event, checkpoint)

        return make

    # ---- its settings ----

    def test_its_settings_are_json_both_ways(self, strategy: Strategy) -> None:
        """A name, the engine's five settings, and a dict that builds the same strategy again."""
        assert re.fullmatch(r"[a-z][a-z0-9_]*", strategy.name), f"name {strategy.name!r}"
        for setting in ("plain", "target_stop"):
            assert isinstance(getattr(strategy, setting), bool), f"{setting} is neither yes nor no"
        assert 0.0 <= strategy.score_below <= 1.0, f"score_below is {strategy.score_below}"
        steps = strategy.finish_steps
        assert steps is None or steps >= 1, f"finish_steps is {steps}"
        written = json.loads(json.dumps(strategy.to_json(), allow_nan=False))
        assert written.get("strategy") == strategy.name, "to_json() does not name the strategy"
        build = getattr(strategy, "from_json", None)
        if build is not None:
            assert build(written) == strategy, "from_json() builds another one"

    def test_what_cannot_help_is_refused_in_words(self, search: Callable[..., Search]) -> None:
        """Any sampler and any list of sigmas is refused with a reason, or searched."""
        every: list[Transition | Whole] = [ODE, fixed_q(0.0), fixed_q(0.7), Whole("euler")]
        for sigmas in (_FEW, [1.0, 0.5, 0.0], [1.0, 0.0], [0.4, 0.2, 0.0]):
            for transition in every:
                problem = MixtureProblem()
                run = partial(search, problem, sigmas, budget=Budget(20), transition=transition)
                found = _outcome(run)
                if isinstance(found, str):
                    assert len(found) > 20, f"refused without a reason: {found}"
                else:
                    _check_ledger(found, problem, 20)

    # ---- what it spends ----

    def test_any_budget_gives_a_picture_and_is_not_exceeded(
        self, search: Callable[..., Search]
    ) -> None:
        """From one evaluation on; the ledger is what the model counted."""
        for number, evaluations in enumerate(_BUDGETS):
            problem, trace = MixtureProblem(), Trace()
            outcome = search(
                problem,
                SIGMAS,
                budget=Budget(evaluations),
                chains=1 + number % 3,
                rows_per_call=(1, 5, 64)[number % 3],
                on_event=trace,
            ).run()
            _check_ledger(outcome, problem, evaluations)
            events = sum(row["evaluations"] for row in trace.record["evaluated"])
            assert events == problem.rows[0], f"{events} in events, {problem.rows[0]} made"

    @pytest.mark.parametrize("guidance", _GUIDANCES, ids=["noise_tilt", "mean_shift"])
    def test_gradients_are_counted_and_a_guided_run_goes_on(
        self, search: Callable[..., Search], transition: Transition | Whole, guidance: Guidance
    ) -> None:
        """Under a gradient, too, the ledger is what the model counted, and an interrupt is no loss.

        A strategy that cannot use it refuses it in words.
        """
        base = fixed_q(0.7) if isinstance(transition, Whole) else transition
        steered = base.guided(guidance)
        for evaluations in (7, 45):
            problem = MixtureProblem(gradient=rare_mode_gradient)
            limits = Budget(evaluations)
            found = _outcome(partial(search, problem, budget=limits, transition=steered))
            if isinstance(found, str):
                assert len(found) > 20, f"refused without a reason: {found}"
                return
            _check_ledger(found, problem, evaluations)
            asked = problem.gradients.get(0, 0)
            charged = found.items[0].ledger.gradient_calls
            assert charged == asked, f"charged {charged} gradients, {asked} were asked for"
        limits, checkpoint = Budget(45), MemoryCheckpoint()
        whole = MixtureProblem(gradient=rare_mode_gradient)
        first = _run(search, problem=whole, budget=limits, transition=steered)
        broken = MixtureProblem(gradient=rare_mode_gradient)
        broken.fail_at = len(whole.calls) // 2
        with pytest.raises(Interrupted):
            search(broken, checkpoint=checkpoint, budget=limits, transition=steered).run()
        rest = MixtureProblem(gradient=rare_mode_gradient)
        again = _run(search, problem=rest, checkpoint=checkpoint, budget=limits, transition=steered)
        _follows(again[0])
        _same(again, first, "a guided run ends otherwise after an interrupt")

    def test_a_limit_of_reward_calls_is_kept(
        self, search: Callable[..., Search], budget: Budget
    ) -> None:
        """No more pictures are scored than may be; of one, the finished plain sample is it."""
        for most in (1, 2, len(_FEW) - 1, 23):
            problem = MixtureProblem()
            limited = replace(budget, reward_calls=most, target=None, top=None)
            found = search(problem, budget=limited).run().items[0]
            assert found.winners, f"no picture of {most} reward calls"
            scored = problem.scored.get(0, 0)
            assert scored <= most, f"{scored} pictures scored, {most} allowed"

    # ---- what it decides by ----

    def test_it_repeats(self, strategy: Strategy, search: Callable[..., Search]) -> None:
        """The same seed and scores: the same run, whatever ran before, and whatever random says."""
        before = copy.deepcopy(strategy.to_json())
        state = random.getstate(), torch.get_rng_state()
        first = _run(search)
        assert random.getstate() == state[0], "it drew from Python's global generator"
        assert torch.equal(torch.get_rng_state(), state[1]), "it drew from torch's global generator"
        random.random()
        _same(first, _run(search), "the same run again is another one")
        assert strategy.to_json() == before, "a run changed the settings"

    def test_what_is_computed_together_changes_nothing(self, search: Callable[..., Search]) -> None:
        """Rows of a call and the other items of the batch are no business of a strategy's."""
        both = _run(search, items=(0, 1), rows_per_call=64)
        for item in (0, 1):
            alone = _run(search, items=(item,), rows_per_call=1)
            place = both[0].items.index(next(one for one in both[0].items if one.item == item))
            one = (replace(both[0], items=[both[0].items[place]]), _of_item(both[1], item))
            _same(one, alone, f"item {item} ends otherwise in a batch")

    def test_ties_and_huge_values_are_rewards_too(self, search: Callable[..., Search]) -> None:
        """Scores that are all the same, or nearly the largest of float32, end in a picture."""
        for name, reward in _REWARDS.items():
            first, second = (_run(search, problem=MixtureProblem(reward)) for _ in range(2))
            assert first[0].items[0].winners, f"no picture where rewards are {name}"
            _same(first, second, f"does not repeat where rewards are {name}")

    def test_it_sees_no_tensor(self, strategy: Strategy, search: Callable[..., Search]) -> None:
        """It holds handles and numbers, and asks by moves whose keys are whole numbers."""
        search(strategy=Watched(strategy)).run()

    # ---- how it ends ----

    def test_a_score_that_is_no_number_ends_it_in_words(
        self, search: Callable[..., Search]
    ) -> None:
        """The engine names it; a strategy is never sent one, and the best so far is kept."""
        for place in (0, 3):
            values = chain((-1000.0 - n for n in range(place)), repeat(float("nan")))
            run = search(MixtureProblem(partial(_next_of, values)), budget=Budget(60))
            with pytest.raises(RewardError):
                run.run()

    def test_it_ends_when_it_is_told_to(self, search: Callable[..., Search]) -> None:
        """Keep the best now, and a target that is reached, end it with a picture."""
        runs: list[Search] = []
        events: list[object] = []

        def stop(event: object) -> None:
            events.append(event)
            if len(events) == 15:
                runs[0].stop("enough")

        runs.append(search(on_event=stop))
        outcome = runs[0].run().items[0]
        assert outcome.why in ("enough", "target", "done"), f"it ended because of {outcome.why!r}"
        assert outcome.winners, "nothing came out when it was stopped"
        reached = search(budget=Budget(200, target=-1e9)).run().items[0]
        assert reached.winners, "nothing came out of a target that is reached at once"

    # ---- interrupts ----

    def test_it_goes_on_where_it_was_interrupted(self, search: Callable[..., Search]) -> None:
        """A run that was interrupted at any call ends as if it had not been, without a repeat."""
        count = MixtureProblem()
        whole = _run(search, problem=count)
        half = (self.interrupts + 1) // 2  # either ends a round, at whose start the last save is
        at_calls = [("fail_at", call) for call in _spread(len(count.calls), self.interrupts)]
        at_scores = [("fail_scores_at", call) for call in _spread(count.score_calls, half)]
        for where, call in (*at_calls, *at_scores):
            checkpoint, broken = MemoryCheckpoint(), MixtureProblem()
            setattr(broken, where, call)
            with pytest.raises(Interrupted):
                search(broken, checkpoint=checkpoint).run()
            again = _run(search, checkpoint=checkpoint, checkpoint_seconds=1e9)  # only read
            _follows(again[0])
            _same(again, whole, f"ends otherwise after an interrupt ({where} {call})")
        checkpoint, idle = MemoryCheckpoint(), MixtureProblem()
        search(checkpoint=checkpoint).run()
        again = _run(search, problem=idle, checkpoint=checkpoint)
        _same(again, whole, "a run that was over ends otherwise when it is read back")
        assert idle.calls == [], "a run that was over calls the model again"

    def test_more_budget_goes_on(self, search: Callable[..., Search]) -> None:
        """A longer run on a shorter one's checkpoint repeats nothing of it."""
        for evaluations in (40, 47):
            checkpoint, longer = MemoryCheckpoint(), MixtureProblem()
            before = _run(search, checkpoint=checkpoint, budget=Budget(evaluations))
            more = Budget(evaluations + 40)
            after = _run(search, problem=longer, checkpoint=checkpoint, budget=more)
            _follows(after[0])
            rows = before[1]["evaluated"]
            assert after[1]["evaluated"][: len(rows)] == rows, "what was done is done otherwise"
            spent = after[0].items[0].ledger.evaluations
            assert spent == before[0].items[0].ledger.evaluations + longer.rows.get(0, 0)
            assert spent <= more.evaluations, f"{spent} spent of {more.evaluations}"


def _next_of(values: Iterator[float], _item: int, _x: Tensor) -> float:
    return next(values)


def _same_for_all(_item: int, _x: Tensor) -> float:
    return 0.0


def _huge(_item: int, x: Tensor) -> float:
    return _HUGE if float(x[0]) > 0.0 else -_HUGE


_REWARDS: Mapping[str, Callable[[int, Tensor], float]] = {
    "all the same": _same_for_all,
    "huge": _huge,
}


class Watched:
    """A strategy that is looked at: what it asks, and what its generator holds at each request."""

    def __init__(self, strategy: Strategy) -> None:
        """Keep the strategy."""
        self._strategy = strategy

    def __getattr__(self, name: str) -> object:
        """Everything but search() is the strategy's own."""
        return getattr(self._strategy, name)

    def search(self, spec: Spec) -> Generator[list[Move], list[Node], list[Node]]:
        """Search as it does, and look at each request."""
        inner = self._strategy.search(spec)
        go_on = partial(next, inner)
        while True:
            try:
                moves = go_on()
            except StopIteration as end:
                return end.value
            _check_moves(moves)
            _check_frames(inner)
            try:
                nodes = yield moves
            except Stop as stop:
                go_on = partial(inner.throw, stop)
            else:
                go_on = partial(inner.send, nodes)
                del nodes


def _check_moves(moves: object) -> None:
    assert isinstance(moves, list), f"a request is a {type(moves).__name__}, no list of moves"
    for move in cast("list[object]", moves):
        assert isinstance(move, Move), f"a request holds a {type(move).__name__}, no Move"
        assert all(type(part) is int for part in move.key), f"key {move.key} is not of integers"
        assert isinstance(move.to, float | int), f"sigma {move.to!r} is no number"


def _check_frames(generator: object) -> None:
    """Look for tensors in what a generator, and those that it waits for, hold."""
    while generator is not None:
        frame: FrameType | None = getattr(generator, "gi_frame", None)
        for name, value in ({} if frame is None else frame.f_locals).items():
            assert not _holds_tensor(value, 3), f"its variable {name} holds a tensor"
        generator = getattr(generator, "gi_yieldfrom", None)


def _holds_tensor(value: object, depth: int) -> bool:
    if isinstance(value, Tensor):
        return True
    inside: Iterable[object] = ()
    if depth and isinstance(value, Mapping):
        inside = cast("Mapping[object, object]", value).values()
    elif depth and isinstance(value, list | tuple | set):
        inside = cast("Iterable[object]", value)
    return any(_holds_tensor(one, depth - 1) for one in inside)


Run = tuple[Outcome, dict[str, Any]]


def told(trace: Trace) -> dict[str, Any]:
    """Return what happened, item by item, without clocks and call numbers."""
    record = trace.record
    evaluated = [_without(row, "seconds", "score_seconds", "call") for row in record["evaluated"]]
    stopped = [{**row, "ledger": _without(row["ledger"], "seconds")} for row in record["stopped"]]
    found: dict[str, Any] = {**record, "evaluated": evaluated, "stopped": stopped}
    kinds = ("evaluated", "chosen", "finished", "stopped")
    return {kind: sorted(found[kind], key=lambda row: row["item"]) for kind in kinds}


def _without(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def _run(search: Callable[..., Search], **changes: Any) -> Run:  # noqa: ANN401 - Search checks them
    trace = Trace()
    return search(on_event=trace, **changes).run(), told(trace)


def _outcome(run: Callable[[], Search]) -> Outcome | str:
    """Run a search; return the reason instead where it is refused."""
    try:
        search = run()
    except ValueError as refusal:
        return str(refusal)
    return search.run()


def _of_item(record: Mapping[str, Any], item: int) -> dict[str, Any]:
    return {kind: [row for row in rows if row["item"] == item] for kind, rows in record.items()}


def _same(a: Run, b: Run, why: str) -> None:
    """The same events, reasons and pictures, to the bit."""
    for one, other in zip(a[0].items, b[0].items, strict=True):
        assert one.why == other.why, f"{why}: {one.why!r}, then {other.why!r}"
        ids = [[winner.node.id for winner in side.winners] for side in (one, other)]
        assert ids[0] == ids[1], f"{why}: winners {ids[0]}, then {ids[1]}"
        for left, right in zip(one.winners, other.winners, strict=True):
            assert torch.equal(left.state["x"], right.state["x"]), f"{why}: another picture"
    assert a[1] == b[1], f"{why}: other candidates or choices on the way"


def _follows(outcome: Outcome) -> None:
    """A checkpoint was taken up, not thrown away."""
    lost = [note for note in outcome.notes if "afresh" in note]
    assert not lost, f"its log cannot be followed: {lost}"


def _check_ledger(outcome: Outcome, problem: MixtureProblem, most: int) -> None:
    for one in outcome.items:
        spent, made = one.ledger.evaluations, problem.rows.get(one.item, 0)
        assert spent == made, f"charged {spent} evaluations, the model made {made}"
        assert spent <= most, f"{spent} evaluations of {most}"
        scored = problem.scored.get(one.item, 0)
        assert one.ledger.reward_calls == scored, (
            f"charged {one.ledger.reward_calls} reward calls, {scored} were made"
        )
        assert one.winners, f"no picture of a budget of {most}"


def _spread(total: int, count: int) -> list[int]:
    """Return calls to interrupt: the first, the last, and as many between."""
    step = max(1, total // max(1, count))
    return sorted({*range(0, total, step), total - 1})
