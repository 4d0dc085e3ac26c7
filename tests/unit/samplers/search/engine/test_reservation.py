"""Whatever stops a chain, enough is left to finish the best that it has."""

import pytest
from toy import SIGMAS, Toy

from flowsearch.samplers.search import (
    Budget,
    Move,
    Node,
    RolloverBudgetForcing,
    Scores,
    SearchSettings,
)
from flowsearch.samplers.search.engine.plan import Plan
from flowsearch.samplers.search.engine.reservation import Reservation
from flowsearch.samplers.search.engine.spending import Spending
from flowsearch.samplers.search.engine.winner import Gallery, Winner
from flowsearch.samplers.search.protocol import Request
from flowsearch.samplers.stepping.transition import ODE


@pytest.fixture
def plan():
    return Plan(Toy(), SearchSettings(RolloverBudgetForcing(), SIGMAS, ODE, Budget(50)))


@pytest.fixture
def gallery():
    """With a finished picture, so that only scored handles are worth holding."""
    gallery = Gallery(1)
    gallery.enter(Winner(Node(0, 0, 0.0, None, 1.0), Scores(1.0), {}), (), None, True)
    return gallery


def request(phase, *moves):
    return Request(0, 0, phase, list(moves), [move.key for move in moves])


def node(number, sigma, score=0.0):
    return Node(number, 0, sigma, None, score)


def search_to(to, *, score=True, donor=None, parent=None):
    return request("search", Move(parent or node(9, 1.0), to, (1,), ODE, score, donor))


def test_the_handle_held_is_the_best_at_the_lowest_sigma(plan, gallery):
    kept = Reservation(0, plan, gallery)
    for one in (node(1, 0.8, 5.0), node(2, 0.5, 1.0), node(3, 0.5, 2.0), node(4, 0.5, 0.0)):
        kept.charge(one, "search", False, None)
        assert kept.evaluations == plan.finish_cost(kept.held.sigma)
    assert kept.held.id == 3
    kept.charge(node(5, 0.7, 9.0), "search", False, None)
    assert kept.held.id == 3


@pytest.mark.parametrize(
    ("one", "is_mix", "phase"),
    [
        (node(1, 0.5, None), False, "search"),  # not scored, and there is a finished picture
        (node(1, 0.5, 3.0), True, "search"),  # a mix
        (node(1, 0.0, 3.0), False, "search"),  # finished
        (node(1, 0.5, 3.0), False, "target"),  # on its way from another
    ],
)
def test_what_is_not_worth_holding(plan, gallery, one, is_mix, phase):
    kept = Reservation(0, plan, gallery)
    kept.charge(one, phase, is_mix, None)
    assert (kept.held, kept.evaluations) == (None, 0)


def test_without_a_finished_picture_any_handle_is_held(plan):
    kept = Reservation(0, plan, Gallery(1))
    kept.charge(node(1, 0.5, None), "search", False, None)
    assert kept.evaluations == plan.finish_cost(0.5) > 0


def test_a_request_is_let_in_with_what_finishes_its_dearest_outcome(plan, gallery):
    kept = Reservation(0, plan, gallery)
    assert kept.price(search_to(0.8), 3) == 3 + plan.finish_cost(0.8)
    kept.charge(node(1, 0.5), "search", False, None)
    held = plan.finish_cost(0.5)
    # going up: what is held stays reserved, or the better of the two
    assert kept.price(search_to(0.8), 3) == 3 + max(held, plan.finish_cost(0.8))
    # going down: the new one will be held, and takes less
    assert kept.price(search_to(0.3), 3) == 3 + plan.finish_cost(0.3) < 3 + held
    # what will not be held reserves nothing of its own
    assert kept.price(search_to(0.8, score=False), 3) == 3 + held
    assert kept.price(search_to(0.8, donor=node(8, 0.8)), 0) == held


def test_a_chain_stands_for_its_request_until_that_is_charged(plan, gallery):
    spending = Spending(plan, Budget(50))
    first, second = (Reservation(chain, plan, gallery) for chain in (0, 1))
    spending.reservations += [first, second]
    first.charge(node(1, 0.5), "search", False, None)
    assert spending.free_for(1) == 50 - first.evaluations
    assert spending.free_for(0) == 50
    first.admit(20)
    assert spending.free_for(1) == 30
    assert spending.reserved() == first.evaluations
    first.charge(node(2, 0.3), "search", False, None)
    assert spending.free_for(1) == 50 - plan.finish_cost(0.3)


def test_a_finishing_reserves_its_whole_way_and_pays_step_by_step(plan, gallery):
    kept = Reservation(0, plan, gallery)
    kept.charge(node(1, 0.3), "search", False, None)
    assert kept.end_search() == plan.finish_cost(0.3)
    assert kept.evaluations == 0
    kept.reserve(plan.finish_cost(0.3))
    step = request("finish", Move(kept.held, 0.2, (1,), ODE, False))
    assert kept.price(step, 1) == plan.finish_cost(0.3)
    path = plan.finish_path(0.3)
    for number, sigma in enumerate(path):
        kept.charge(node(2 + number, sigma, None), "finish", False, 1)
        assert kept.evaluations == len(path) - 1 - min(number + 1, len(path) - 1)
    kept.begin()
    assert (kept.held, kept.evaluations, kept.searches) == (None, 0, True)


def test_a_handle_that_was_finished_at_once_reserves_nothing_any_more(plan, gallery):
    kept = Reservation(0, plan, gallery)
    kept.charge(node(1, 0.3), "search", False, None)
    kept.charge(node(2, 0.0), "target", False, 7)
    assert kept.evaluations == plan.finish_cost(0.3)
    kept.charge(node(3, 0.0), "target", False, 1)
    assert kept.evaluations == 0


def test_an_item_never_promises_more_than_it_has(plan, gallery):
    spending = Spending(plan, Budget(5))
    spending.reservations += [Reservation(chain, plan, gallery) for chain in (0, 1)]
    spending.reservations[0].reserve(9)
    assert spending.free_for(1) == 0
    assert spending.free_for(0) == 5
