"""A winner's path is the states that led to it, kept through a crash, and bounded."""

import gc
import itertools

import pytest
import torch
from toy import SIGMAS, Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import (
    BestOfN,
    Budget,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Scores,
    Trace,
    Whole,
)
from flowsearch.samplers.search.account.lineage import FRAMES, Frame, Lineages, Place, small
from flowsearch.samplers.search.protocol import Node
from flowsearch.samplers.stepping.integrate import row
from flowsearch.samplers.stepping.step import step
from flowsearch.samplers.stepping.transition import ODE, Transition


class Pictured(Toy):
    """The toy with a thumbnail: a picture whose brightness is the reward."""

    def score(self, items, denoised, sigmas):
        scores = super().score(items, denoised, sigmas)
        return [
            Scores(s.value, thumbnail=torch.full((200, 100, 3), 1.0 / (1.0 - s.value)))
            for s in scores
        ]


def search(problem, strategy, evaluations=150, transition=ODE, **given):
    trace = given.pop("trace", None) or Trace()
    return trace, make_search(
        problem, strategy, SIGMAS, transition, Budget(evaluations), seed=4, on_event=trace, **given
    )


CASES = {
    "default": EvolutionarySearch(),
    "descent": RolloverBudgetForcing(draws=3),
    "best_of_n": BestOfN(),
}


@pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())
def test_the_path_leads_from_the_last_rise_to_the_winner(strategy):
    trace, run = search(Pictured(), strategy, top_k=3)
    for winner in run.run().items[0].winners:
        path = winner.lineage.path
        rows = {row["id"]: row for row in trace.family(0, winner.node.id)}
        line = [rows[place.id] for place in path]
        assert line[-1]["id"] == winner.node.id
        assert all(b["parent"] == a["id"] for a, b in itertools.pairwise(line))
        assert all(b["sigma"] < a["sigma"] for a, b in itertools.pairwise(line))
        first = line[0]
        assert first["parent"] is None or first["sigma"] >= rows[first["parent"]]["sigma"]
        assert torch.equal(path[-1].state["x"], winner.state["x"])
        for (a, b), (here, there) in zip(
            itertools.pairwise(line), itertools.pairwise(path), strict=True
        ):
            if Transition.from_json(b["transition"]) == ODE:
                x, denoised = here.state["x"], here.state["denoised"]
                moved = step(x, denoised, row(ODE, a["sigma"], b["sigma"]), None)
                assert torch.equal(moved, there.state["x"])


@pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())
def test_frames_are_what_the_reward_saw_of_the_scored_ancestors(strategy):
    trace, run = search(Pictured(), strategy)
    winner = run.run().items[0].winners[0]
    rows = {row["id"]: row for row in trace.family(0, winner.node.id)}
    scored = [number for number, row in rows.items() if row["scores"]]
    assert [frame.id for frame in winner.lineage.frames] == scored[-FRAMES:]
    for frame in winner.lineage.frames:
        value = rows[frame.id]["scores"]["value"]
        assert frame.picture.shape == (128, 64, 3)
        assert float(frame.picture.float().mean()) == pytest.approx(255 / (1 - value), abs=0.6)


def test_a_whole_run_has_its_end_only():
    _, run = search(Pictured(), BestOfN(), transition=Whole("stock"))
    (place,) = run.run().items[0].winners[0].lineage.path
    assert set(place.state) == {"x"}


def signature(lineage):
    return (
        [(p.id, {k: v.numpy().tobytes() for k, v in p.state.items()}) for p in lineage.path],
        [(f.id, f.picture.numpy().tobytes()) for f in lineage.frames],
    )


@pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())
def test_a_resumed_run_has_the_same_lineage(strategy):
    _, run = search(Pictured(), strategy, items=(0, 1), top_k=2)
    whole = run.run()
    kept, problem = MemoryCheckpoint(), Pictured()
    problem.fail_at = 40
    given = {"items": (0, 1), "top_k": 2, "checkpoint": kept}
    with pytest.raises(Interrupted):
        search(problem, strategy, **given)[1].run()
    again = search(Pictured(), strategy, **given)[1].run()
    for mine, theirs in zip(again.items, whole.items, strict=True):
        for a, b in zip(mine.winners, theirs.winners, strict=True):
            assert signature(a.lineage) == signature(b.lineage)


@pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())
def test_what_is_kept_does_not_grow_with_the_budget(strategy):
    def most(evaluations):
        counts, counted = [], set()

        def count(_):  # a round's candidates and what is kept of their ancestors
            number = len(trace.record["evaluated"]) // 40
            if number not in counted:
                counted.add(number)
                gc.collect()
                counts.append(sum(type(o) in (Place, Frame) for o in gc.get_objects()))

        trace = Trace()
        _, run = search(Pictured(), strategy, evaluations, trace=trace)
        tell = run._on_event
        run._on_event = lambda event: (tell(event), count(event))
        gc.freeze()  # what was there before is not looked at again
        try:
            run.run()
        finally:
            gc.unfreeze()
        return max(counts)

    # the frames of a family that rises often are capped; a path has at most the run's sigmas
    few, many = most(80), most(240)
    assert many <= few + FRAMES


def test_frames_are_capped_and_relatives_share_them():
    lineages, nodes = Lineages(), []
    for number in range(FRAMES + 20):
        parent = nodes[-1] if nodes else None
        node = Node(number, 0, 0.0 if number % 2 else 0.8, parent and parent.id, 0.0)
        state = {"x": torch.zeros(1, 4)}
        lineages.add(node, parent and parent.sigma, state, torch.rand(8, 8, 3))
        nodes = [node]
    kept = lineages.of(nodes[0])
    assert [frame.id for frame in kept.frames] == [*range(20, FRAMES + 20)]
    assert [place.id for place in kept.path] == [FRAMES + 18, FRAMES + 19]
    twins = [Node(100 + i, 0, 0.4, nodes[0].id, 0.0) for i in range(2)]
    for twin in twins:
        lineages.add(twin, 0.8, {"x": torch.zeros(1, 4)}, None)
    assert lineages.of(twins[0]).frames[0] is lineages.of(twins[1]).frames[0]
    assert lineages.of(twins[0]).path[0] is lineages.of(twins[1]).path[0]


def test_small_keeps_proportions_and_memory_of_its_own():
    batch = torch.rand(3, 300, 150, 4)
    kept = small(batch[1])
    assert kept.shape == (128, 64, 3)
    assert kept.untyped_storage().nbytes() == kept.numel()
    tiny = torch.rand(5, 7, 3)
    assert torch.equal(small(tiny), (tiny * 255).round().byte())
