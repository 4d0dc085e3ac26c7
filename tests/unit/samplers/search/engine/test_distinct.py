"""Several results are different pictures: what is nearly the same counts once."""

import contextlib
import itertools
from dataclasses import dataclass

import pytest
import torch
from toy import SIGMAS, Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import BestOfN, Budget, Move, Scores, Trace
from flowsearch.samplers.search.engine.winner import NEARLY, alike
from flowsearch.samplers.stepping.transition import ODE, fixed_q


class Wide(Toy):
    """States wide enough that pictures of one kind differ; the reward is one coordinate."""

    dim = 64

    def model(self, items, x, sigma):
        self.calls.append(len(x))
        if self.fail_at == len(self.calls):
            raise self.failure
        return x / (1.0 + sigma)

    def score(self, items, denoised, sigmas):
        return [Scores(float(x[0])) for x in denoised]


@dataclass(frozen=True)
class Twins:
    """Finishes many pictures that are nearly the same, of a few starts."""

    name = "twins"
    plain = False
    finish_steps = 1
    score_below = 0.0
    target_stop = True
    q: float = 0.9999

    def check(self, sigmas, transition):
        pass

    def to_json(self):
        return {"strategy": self.name}

    def search(self, spec):
        for start in range(3):
            (node,) = yield [Move(None, 1.0, (start,), score=False)]
            for copy in itertools.count():
                nodes = yield [Move(node, 0.9, (start, 1, copy), fixed_q(self.q), False)]
                nodes = yield [Move(nodes[0], 0.0, (start, 2, copy), ODE)]
                if copy == 9:
                    break
        return []


def search(top_k, q=0.9999, toy=None, checkpoint=None, trace=None):
    return make_search(
        toy or Wide(), Twins(q), SIGMAS, ODE, Budget(34), top_k=top_k, on_event=trace,
        checkpoint=checkpoint, checkpoint_seconds=0.0,
    )  # fmt: skip


def test_near_duplicates_count_once_and_the_best_of_them_stays():
    trace = Trace()
    (item,) = search(5, trace=trace).run().items
    finished = trace.record["finished"]
    assert len(finished) == 30
    values = [row["scores"]["value"] for row in finished]
    best_of_each = [max(values[begin : begin + 10]) for begin in (0, 10, 20)]
    assert [w.scores.value for w in item.winners] == sorted(best_of_each, reverse=True)


def test_what_differs_counts_each():
    (item,) = search(5, q=0.9).run().items
    assert len(item.winners) == 5
    for a, b in itertools.combinations(item.winners, 2):
        assert not alike(a.state["x"], b.state["x"])


def test_one_result_is_the_best_whatever_is_like_it():
    trace = Trace()
    (item,) = search(1, trace=trace).run().items
    values = [row["scores"]["value"] for row in trace.record["finished"]]
    assert [w.scores.value for w in item.winners] == [max(values)]


@pytest.mark.parametrize("at", range(3, 60, 7))
def test_a_replay_decides_the_same(at):
    """It has no tensors of what was pushed out, so the log must say what was like what."""
    expected = search(2).run().items[0]
    toy, checkpoint = Wide(), MemoryCheckpoint()
    toy.fail_at, toy.failure = at, Interrupted()
    with contextlib.suppress(Interrupted):
        search(2, toy=toy, checkpoint=checkpoint).run()
    found = search(2, checkpoint=checkpoint).run().items[0]
    assert [w.node.id for w in found.winners] == [w.node.id for w in expected.winners]
    for a, b in zip(found.winners, expected.winners, strict=True):
        assert torch.equal(a.state["x"], b.state["x"])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_alike_has_no_scale(scale, shift):
    generator = torch.Generator().manual_seed(0)
    a, z = (torch.randn(1, 4, 32, 32, generator=generator) for _ in range(2))
    for part, same in ((0.0, True), (0.9 * NEARLY, True), (1.1 * NEARLY, False), (1.0, False)):
        b = a + part * z * a.std() / z.std()
        assert alike(scale * (a + shift), scale * (b + shift)) == same


def test_flat_pictures_are_alike_only_if_they_are_equal():
    assert alike(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    assert not alike(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))


def test_best_of_n_gives_as_many_as_are_asked_for():
    outcome = make_search(Wide(), BestOfN(), SIGMAS, ODE, Budget(100), top_k=6).run()
    assert len(outcome.items[0].winners) == 6
