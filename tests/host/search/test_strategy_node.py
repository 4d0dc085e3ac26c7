"""The Search Strategy node offers every strategy, with the engine's defaults, and each one runs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import host_models as hm
import pytest
import searching as s

from flowsearch.nodes.host.search.search_sampler import StrategyChoice
from flowsearch.nodes.search.strategy import CHOICES, Choice, Strategy, choice_of, option
from flowsearch.nodes.search.strategy_widgets import WIDTH, said_of, widgets_of
from flowsearch.samplers.search import STRATEGIES
from flowsearch.samplers.search.settings import Settings
from flowsearch.samplers.search.strategies.published import PUBLISHED, published

PER_STEP = {"rbf", "svdd", "code", "smc", "search_over_paths", "threshold"}
OTHERS = {"evolutionary", "zero_order", "best_of_n", "rbf_reference", "published"}


def shown(name):
    """Return the widgets of one option as the schema declares them."""
    combo = next(one for one in Strategy.define_schema().inputs if one.id == "strategy")
    option = next(one for one in combo.options if one.key == name)
    return {widget.id: widget for widget in option.inputs}


def test_every_strategy_of_the_engine_is_offered():
    assert {*STRATEGIES} | PER_STEP | OTHERS == {*CHOICES}


@dataclass(frozen=True)
class Own(Settings):
    """Draws a little. And more words.

    Attributes:
        name: No setting.
        width: Of these.
        reach: How far,
            in steps.
        share: What part.
        way: Which way.
    """

    name: ClassVar[str] = "own"
    width: int = 4
    reach: int | None = None
    share: float = 0.5
    way: Literal["up", "down"] = "up"
    again: bool = False


def test_a_strategy_without_a_table_is_shown_by_what_it_says_of_itself():
    made = option("own", Choice(Own, Own(), widgets_of(Own)))
    shown = {widget.id: widget for widget in made.inputs}
    assert [*shown] == ["width", "reach", "share", "way", "again"]
    assert shown["width"].tooltip == WIDTH.tooltip
    assert (shown["reach"].tooltip, shown["reach"].default) == ("How far, in steps.", 0)
    assert (shown["share"].min, shown["share"].max) == (0, 1.0)
    assert shown["way"].options == ["up", "down"]
    assert shown["again"].default is False
    assert said_of(Own) == "Draws a little. And more words."


@pytest.mark.parametrize("name", CHOICES)
def test_the_widgets_defaults_are_the_engines(name):
    values = {key: widget.default for key, widget in shown(name).items()}
    built = choice_of({"strategy": name, **values}, 1, 0)
    assert built == choice_of({"strategy": name}, 1, 0)


def refusal(name, key, value):
    """Return what a strategy says to one widget's value; "" if it takes it."""
    try:
        choice_of({"strategy": name, key: value}, 1, 0)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", CHOICES)
def test_the_ends_of_every_widget_are_accepted_or_refused_with_a_sentence(name):
    for key, widget in shown(name).items():
        ends = [getattr(widget, end, None) for end in ("min", "max")]
        said = [refusal(name, key, end) for end in ends if end is not None]
        assert all(not text or text.startswith((f"{name}: ", "rbf: ")) for text in said)


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_published_method_has_its_own_chains(method):
    row = published(method, 4)
    built = choice_of({"strategy": "published", "method": method, "finish_steps": 4}, 7, 5)
    assert built == StrategyChoice(row.strategy, row.chains, 5, row)


@pytest.mark.parametrize("name", sorted({*STRATEGIES, "threshold"}))
def test_each_one_searches_and_is_charged_what_the_network_saw(name):
    model = hm.scene_model()
    rows = s.count_rows(model)
    latent, _, report = s.reward_search(model, evaluations=45, strategy=s.strategy(name))
    spent = report.trace.record["stopped"][0]["ledger"]
    assert spent["evaluations"] == sum(rows) <= 45
    assert spent["phases"]["search"] > 0
    assert report.trace.record["started"][0]["settings"]["strategy"]["plain"]
    assert latent["samples"].shape[0] == 1


@pytest.mark.parametrize("name", ["svdd", "code", "smc"])
def test_a_stochastic_samplers_own_law_is_drawn_from(name):
    model = hm.scene_model()
    _, _, report = s.search(
        hm.guider(model, 0.5), s.flow(), strategy=s.strategy(name, q=0.0, score_below=0.9)
    )
    laws = {
        row["transition"]["law"]["name"]
        for row in report.trace.record["evaluated"]
        if row["phase"] == "search" and row["transition"]
    }
    assert laws == {"constant_k"}


@pytest.mark.parametrize("name", sorted(PER_STEP - {"rbf"} | {"zero_order"}))
def test_a_stock_sampler_is_refused_with_the_remedy(name):
    with pytest.raises(ValueError, match=r"can only be run whole.* or use best_of_n"):
        s.search(hm.guider(hm.scene_model(), 0.5), s.sampler("euler"), strategy=s.strategy(name))
