"""What goes wrong is named, and nothing that was finished is lost."""

import math
import weakref

import pytest
import torch
from toy import SIGMAS, Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import (
    BestOfN,
    Budget,
    DecodeError,
    ModelError,
    RewardError,
    RolloverBudgetForcing,
    Scores,
)
from flowsearch.samplers.stepping.transition import ODE

RBF = RolloverBudgetForcing


class Faulty(Toy):
    """A reward that goes wrong for one candidate, by number."""

    reward_name = "faulty reward"

    def __init__(self, at, how) -> None:
        super().__init__()
        self.at, self.how, self.count = at, how, 0
        self.victim = None

    def score(self, items, denoised, sigmas):
        scores = []
        for item, x in zip(items, denoised, strict=True):
            if self.victim is None and self.count == self.at:
                self.victim = x.clone()
            self.count += 1
            if self.victim is not None and torch.equal(x, self.victim):
                if isinstance(self.how, BaseException):
                    raise self.how
                scores.append(Scores(self.how))
            else:
                scores.append(Scores(self.reward(item, x)))
        return scores


def start(toy, **more):
    return make_search(toy, RBF(), SIGMAS, ODE, Budget(100), items=(0, 1), **more)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_named_with_its_candidate(value):
    search = start(Faulty(45, value))
    with pytest.raises(RewardError) as caught:
        search.run()
    text = str(caught.value)
    assert f"faulty reward returned {value}" in text
    assert "candidate item" in text
    assert "key (0, 0, 0," in text
    assert search.best(0) is not None


def test_a_reward_that_raises_is_named_with_candidate_and_cause():
    toy = Faulty(45, KeyError("no such class"))
    search = start(toy)
    with pytest.raises(RewardError) as caught:
        search.run()
    text = str(caught.value)
    assert "faulty reward raised KeyError: 'no such class' for the candidate item" in text
    assert text.count("key (") == 1
    assert isinstance(caught.value.__cause__, KeyError)
    assert search.best(1).scores.value == search.outcome().items[1].plain.scores.value


@pytest.mark.parametrize("paid", [False, True])
def test_scores_asked_for_in_vain_are_charged_and_paid_ones_never_asked_twice(paid):
    toy = Faulty(45, KeyError("no such class"))
    toy.reward_paid = paid
    toy.shares_calls = False
    asked = []
    score = toy.score
    toy.score = lambda items, x, sigmas: (asked.append(len(items)), score(items, x, sigmas))[1]
    search = start(toy)
    with pytest.raises(RewardError, match="KeyError: 'no such class' for the candidate item"):
        search.run()
    charged = sum(each.ledger.reward_calls for each in search.outcome().items)
    assert charged == sum(asked)
    seen = sum(asked)
    toy.reward_paid, toy.count, toy.victim = not paid, 0, None
    asked.clear()
    with pytest.raises(RewardError):
        start(toy).run()
    assert (seen < sum(asked)) == paid


class Miscounting(Toy):
    def score(self, items, denoised, sigmas):
        return super().score(items, denoised, sigmas)[:-1]


def test_a_reward_with_too_few_scores_is_named():
    with pytest.raises(RewardError, match="toy returned 1 scores for 2 pictures"):
        start(Miscounting()).run()


class Blurred(Toy):
    """A model that returns NaN for one item from some call on."""

    def __init__(self, at, item=1, key="denoised"):
        super().__init__(shares_calls=False)
        self.at, self.item, self.key = at, item, key

    def _broken(self, items, state):
        if len(self.calls) > self.at and self.item in items:
            state = {**state, self.key: state[self.key].clone()}
            state[self.key][-1, 2] = math.nan
        return state

    def predict(self, items, state, sigma):
        state = super().predict(items, state, sigma)
        return self._broken(items, state) if self.key == "denoised" else state

    def move(self, items, state, sigma_from, to, transition, noise):
        state = super().move(items, state, sigma_from, to, transition, noise)
        return self._broken(items, state) if self.key == "x" else state


@pytest.mark.parametrize(("key", "what"), [("denoised", "prediction"), ("x", "step")])
@pytest.mark.parametrize("at", [3, 50])
def test_what_is_not_finite_is_the_models_fault(key, what, at):
    search = start(Blurred(at, 0, key))
    with pytest.raises(ModelError, match=f"model's {what} holds numbers that are not finite") as e:
        search.run()
    assert "candidate item 0, key (" in str(e.value)
    assert "not the reward's doing" in str(e.value)
    assert (search.best(0) is not None) == (at == 50)


class Undecodable(Faulty):
    def __init__(self, at):
        super().__init__(at, DecodeError("the VAE raised OSError: out of paint"))


def test_a_picture_that_cannot_be_decoded_is_not_the_rewards_fault():
    with pytest.raises(DecodeError, match="the VAE raised OSError: out of paint for the candid"):
        start(Undecodable(30)).run()


# ---- one item's error does not lose the others ----

FAULTS = {
    "reward": (lambda: Faulty(45, ValueError("no")), RewardError),
    "value": (lambda: Faulty(45, math.nan), RewardError),
    "model": (lambda: Blurred(30), ModelError),
    "early": (lambda: Blurred(2), ModelError),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_other_items_finish_and_then_the_error_is_raised(name):
    make, kind = FAULTS[name]
    toy, checkpoint = make(), MemoryCheckpoint()
    shares = toy.shares_calls
    search = start(toy, checkpoint=checkpoint)
    with pytest.raises(kind):
        search.run()
    failed = [one for one in search.outcome().items if not one.why]
    (done,) = (one for one in search.outcome().items if one.why)
    assert len(failed) == 1
    assert "item" in search.outcome().notes[0]
    expected = start(Toy(shares_calls=shares)).run()
    for one in expected.items:
        if one.item == done.item:
            assert torch.equal(one.winners[0].state["x"], done.winners[0].state["x"])
            assert one.ledger.evaluations == done.ledger.evaluations
            assert toy.rows[one.item] == one.ledger.evaluations
    # what was broken is mended: only the failed item goes on, and ends as if nothing had been
    mended = Toy(shares_calls=shares)
    mended.reward_name = toy.reward_name
    resumed = start(mended, checkpoint=checkpoint).run()
    assert done.item not in mended.rows
    for one, other in zip(resumed.items, expected.items, strict=True):
        assert torch.equal(one.winners[0].state["x"], other.winners[0].state["x"])


def test_a_fault_holds_no_tensors():
    """Its traceback would keep the activations of a network until the other items are done."""

    class Big(Toy):
        def predict(self, items, state, sigma):
            big = torch.zeros(1000)
            watched.append(weakref.ref(big))
            if 1 in items and len(self.calls) > 12:
                raise ValueError("broken network")
            if len(watched) > 25:
                alive.append(sum(ref() is not None for ref in watched[:-1]))
            return super().predict(items, state, sigma)

    watched, alive = [], []
    with pytest.raises(ValueError, match="broken network"):
        start(Big(shares_calls=False)).run()
    assert set(alive) == {0}


# ---- memory ----


class Small(Toy):
    """A reward with room for so many pictures."""

    def __init__(self, room):
        super().__init__()
        self.space, self.batches = room, []

    def score(self, items, denoised, sigmas):
        if len(items) > self.space:
            raise torch.cuda.OutOfMemoryError("toy reward")
        self.batches.append(len(items))
        return super().score(items, denoised, sigmas)


@pytest.mark.parametrize("room", [1, 3])
def test_scoring_is_halved_when_memory_runs_out(room):
    def search(toy, checkpoint=None):
        return make_search(toy, BestOfN(width=8), SIGMAS, ODE, Budget(200), checkpoint=checkpoint)

    toy, checkpoint = Small(room), MemoryCheckpoint()
    outcome = search(toy, checkpoint).run()
    assert max(toy.batches) in (1, 2)
    assert toy.scored[0] == outcome.items[0].ledger.reward_calls
    expected = search(Toy()).run()
    assert torch.equal(
        outcome.items[0].winners[0].state["x"], expected.items[0].winners[0].state["x"]
    )
    assert '"scores_per_call": ' + str(max(toy.batches)) in checkpoint.kept[1]


def test_no_room_for_one_picture_is_said():
    with pytest.raises(torch.cuda.OutOfMemoryError, match="one picture is too much for the reward"):
        start(Small(0)).run()


class HostBefore020(Exception):
    """A cancel that derives from Exception."""


@pytest.mark.parametrize("failure", [Interrupted(), KeyboardInterrupt(), HostBefore020()])
@pytest.mark.parametrize("where", ["fail_at", "fail_scores_at"])
def test_a_cancel_passes_unchanged_and_keeps_the_best(failure, where):
    toy, checkpoint = Toy(), MemoryCheckpoint()
    toy.interrupts = (Interrupted, HostBefore020)
    toy.failure = failure
    setattr(toy, where, 25)
    search = start(toy, checkpoint=checkpoint)
    with pytest.raises(type(failure)) as caught:
        search.run()
    assert caught.value is failure
    assert checkpoint.saves == 1
    assert search.best(0).state["x"].shape == (1, Toy.dim)
    assert search.outcome().items[0].why == ""
    uninterrupted = start(Toy()).run()
    resumed = start(Toy(), checkpoint=checkpoint).run()
    for one, other in zip(resumed.items, uninterrupted.items, strict=True):
        assert torch.equal(one.winners[0].state["x"], other.winners[0].state["x"])


def test_a_cancel_before_anything_is_finished():
    toy = Toy()
    toy.fail_at = 3
    search = start(toy)
    with pytest.raises(Interrupted):
        search.run()
    assert search.best(0) is None


class Broken(MemoryCheckpoint):
    def save(self, tensors, data):
        raise OSError("disk full")


def test_a_checkpoint_that_cannot_be_written_does_not_hide_the_cause(caplog):
    toy = Toy()
    toy.fail_at = 20
    with pytest.raises(Interrupted):
        start(toy, checkpoint=Broken()).run()
    assert "could not be written" in caplog.text


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_search(caplog):
    outcome = start(Toy(), checkpoint=Broken(), checkpoint_seconds=0.0).run()
    expected = start(Toy()).run()
    assert torch.equal(
        outcome.items[0].winners[0].state["x"], expected.items[0].winners[0].state["x"]
    )
    assert "disk full" in caplog.text


class Faint(RBF):
    """A strategy with a fault: it raises on the third reply of its third pass."""

    def search(self, spec):
        steps, replies = super().search(spec), 0
        moves = next(steps)
        while True:
            nodes = yield moves
            replies += 1
            if spec.pass_ == 2 and replies == 3:
                raise ZeroDivisionError("in the strategy")
            try:
                moves = steps.send(nodes)
            except StopIteration as end:
                return end.value


def test_a_strategy_that_raises_leaves_the_last_checkpoint_as_it_was():
    checkpoint = MemoryCheckpoint()

    def start(strategy):
        return make_search(
            Toy(), strategy, SIGMAS, ODE, Budget(150), checkpoint=checkpoint, checkpoint_seconds=0.0
        )

    search = start(Faint(draws=2))
    with pytest.raises(ZeroDivisionError, match="in the strategy"):
        search.run()
    assert search.best(0) is not None
    outcome = start(RBF(draws=2)).run()
    expected = make_search(Toy(), RBF(draws=2), SIGMAS, ODE, Budget(150)).run()
    assert outcome.notes == []
    one, other = outcome.items[0].winners[0], expected.items[0].winners[0]
    assert torch.equal(one.state["x"], other.state["x"])


class Ragged(Toy):
    def predict(self, items, state, sigma):
        return {**super().predict(items, state, sigma), "history": torch.zeros(99, 1)}


def test_a_state_with_other_rows_is_an_error():
    with pytest.raises(ValueError, match="'history' has 99 rows, 2 were asked for"):
        start(Ragged()).run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": [1.0]}, "at least two falling"),
        ({"sigmas": [1.0, 0.5, 0.7, 0.0]}, "falling"),
        ({"sigmas": [1.0, 0.8, 0.5, 0.2]}, "end at 0"),
        ({"sigmas": [14.6, 3.0, 0.5, 0.0]}, r"lie in \[0, 1\]"),
        ({"items": ()}, "at least one"),
        ({"items": (1, 1)}, "different batch rows"),
        ({"chains": 0}, "chains and top_k"),
        ({"rows_per_call": 0}, "rows_per_call"),
    ],
)
def test_settings_that_cannot_run_are_refused(change, message):
    settings = {"sigmas": SIGMAS, "items": (0,), **change}
    with pytest.raises(ValueError, match=message):
        make_search(Toy(), RBF(), transition=ODE, budget=Budget(100), **settings)


@pytest.mark.parametrize(
    "limits",
    [
        {"evaluations": 0},
        {"evaluations": 5, "seconds": 0.0},
        {"evaluations": 5, "reward_calls": 0},
        {"evaluations": 5, "target": math.nan},
    ],
)
def test_budgets_that_leave_nothing_to_do_are_refused(limits):
    with pytest.raises(ValueError, match="budget"):
        Budget(**limits)
