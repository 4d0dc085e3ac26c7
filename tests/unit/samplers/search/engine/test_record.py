"""What is written down of a run is what it was, and what was changed in it is refused."""

import copy
import json
from pathlib import Path

import pytest
import torch
from toy import MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import Budget, RolloverBudgetForcing
from flowsearch.samplers.search.engine.record import SegmentRecord
from flowsearch.samplers.stepping.transition import ODE

KEPT = json.loads(
    (Path(__file__).parents[4] / "data" / "search_checkpoint.json").read_text(encoding="utf-8")
)
LOG = KEPT["data"]["logs"][0]
STEPS = [1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.0]


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from_and_written_again_as_it_was():
    """Made before rounds were records: two budgets, a hit of the target, shares, likenesses."""
    tensors = {name: torch.tensor(rows).double() for name, rows in KEPT["tensors"].items()}
    checkpoint, toy = MemoryCheckpoint(), Toy()
    checkpoint.save(tensors, KEPT["data"])
    outcome = make_search(
        toy, RolloverBudgetForcing(draws=2, width=2, finalists=2), STEPS, ODE, Budget(36),
        seed=KEPT["data"]["settings"]["seed"], chains=2, top_k=2, rows_per_call=3,
        checkpoint=checkpoint,
    ).run()  # fmt: skip
    assert (outcome.notes, toy.calls, toy.score_calls) == ([], [], 0)
    kept, text = checkpoint.kept
    data = json.loads(text)
    assert data.pop("elapsed") >= KEPT["data"]["elapsed"]
    assert data == {key: value for key, value in KEPT["data"].items() if key != "elapsed"}
    assert list(data["logs"][0][0]["rounds"][0]) == list(LOG[0]["rounds"][0])  # keys in order
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)


def test_records_go_to_json_and_back():
    text = json.dumps(LOG)
    assert json.dumps([SegmentRecord.from_json(one).to_json() for one in json.loads(text)]) == text
    again = [SegmentRecord.from_json(one) for one in LOG]
    assert again == [SegmentRecord.from_json(one.to_json()) for one in again]
    decided = [each for one in again for each in one.rounds]
    assert {each.hit for each in decided} > {None, ()}
    assert {each.stop for each in decided} == {None, ""}


WRONG = {
    "id": "1", "parent": 1.5, "donor": "none", "from": "top", "sigma": None, "key": 3,
    "transition": [], "evaluations": True, "rows": None, "call": "0", "seconds": "long",
    "score": 0.5, "like": [0.5],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_is_refused(name):
    data = copy.deepcopy(LOG[0])
    data["rounds"][0]["requests"][0]["rows"][0][name] = WRONG[name]
    with pytest.raises(TypeError):
        SegmentRecord.from_json(data)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "like"])
def test_what_is_missing_is_refused(name):
    data = copy.deepcopy(LOG[0])
    del data["rounds"][0]["requests"][0]["rows"][0][name]
    with pytest.raises(KeyError, match=name):
        SegmentRecord.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"requests": None},
        {"hit": [1]},
        {"hit": "0"},
        {"stop": 3},
        {"shares": [[1]]},
        {"shares": [[1, "all"]]},
    ],
)
def test_a_decision_of_another_kind_is_refused(change):
    data = copy.deepcopy(LOG[0])
    data["rounds"][0].update(change)
    with pytest.raises((TypeError, ValueError)):
        SegmentRecord.from_json(data)
