"""The Search Strategy node: which search, with which settings.

Settings are the engine's own; names, defaults and checks come from its dataclasses, and the tables
here add what a widget needs. Where the engine says None ("decide yourself"), the widget says 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from comfy_api.latest import io

from ...samplers.search import (
    STRATEGIES,
    SVDD,
    BestOfN,
    CoDe,
    EvolutionarySearch,
    RolloverBudgetForcing,
    SearchOverPaths,
    SequentialMonteCarlo,
    ZeroOrderSearch,
)
from ...samplers.search.strategies.published import PUBLISHED, Published, published
from ...samplers.search.strategies.rollover import ACCEPT, BASELINE, EXHAUSTED
from ..host.search.search_sampler import StrategyChoice
from ..sockets import CATEGORY_SEARCH, FlowStrategy
from . import strategy_widgets as widgets
from .strategy_widgets import COUNT, FINISH_STEPS, PLAIN, TARGET_STOP, WIDTH, Widget

__all__ = ["CHOICES", "NODES", "Choice", "Strategy", "choice_of", "option"]

NONE_IS_0 = ("q", "finish_steps")
POOL = Widget(
    "Starts to choose from before the first step. 0: sized to the budget; 1: the first "
    "start only; many: the start counts for more and fewer variations are tried later.",
    0,
    COUNT,
)

RBF: dict[str, Widget] = {
    "width": WIDTH,
    "q": Widget(
        "How much of its noise a variation keeps, 0 to 1. Near 1: small changes; near 0: nearly a "
        "new picture each time; exactly 0: as the connected sampler's noise law says.",
        advanced=False,
    ),
    "score_below": Widget(
        "Predictions above this sigma are not scored: there they do not yet show the picture. 1: "
        "score all (few-step models); low: search late, only details change.",
        advanced=False,
    ),
    "sigma_high": Widget(
        "Variations are drawn at or below this sigma. High: composition may change; low: details "
        "only."
    ),
    "sigma_low": Widget(
        "Variations are drawn above this sigma. High: the last part is left to the plain sampler "
        "and costs little; 0: search to the end."
    ),
    "pool": POOL,
    "draws": Widget(
        "Most variations at one step. 0: the budget shared out; 1: no search; many: fewer steps "
        "are searched before the budget ends.",
        0,
        COUNT,
    ),
    "passes": Widget(
        "Searches from the start that share the budget. 1: one, thorough; many: more starts, each "
        "searched less.",
        1,
        COUNT,
    ),
    "accept": Widget(
        "When to go on to the next step before all draws are used. improve: a better one was "
        "found; threshold: one reached the threshold; never: use all draws.",
        options=ACCEPT,
    ),
    "baseline": Widget(
        "What better means for improve. ever: than all before it; parent: than the picture it was "
        "drawn from.",
        options=BASELINE,
    ),
    "threshold": Widget(
        "Reward for accept threshold, in the reward's unit. Low: goes on at once; high: uses all "
        "draws.",
        -1e9,
        1e9,
    ),
    "rollover": Widget(
        "Whether draws that a step did not need go to the next step. Off: they are spent on "
        "another search from the start."
    ),
    "exhausted": Widget(
        "When no draw of a step was accepted. advance: go on with the best of them; restart: give "
        "up and search from the start again.",
        options=EXHAUSTED,
    ),
    "finalists": Widget(
        "Candidates of the last searched step that are finished. 1: cheapest; many: predictions "
        "that mislead do less harm.",
        1,
        1024,
    ),
    "best_kept": Widget(
        "Also finish an earlier candidate whose prediction scored higher. Off: saves its steps."
    ),
    "finish_steps": FINISH_STEPS,
    "plain": PLAIN,
    "target_stop": TARGET_STOP,
}
REFERENCE: dict[str, Widget] = {"pool": replace(POOL, low=1), "finish_steps": FINISH_STEPS}
_ON_THE_WAY = (
    "width", "q", "score_below", "sigma_high", "sigma_low", "pool", "draws", "passes", "rollover",
    "exhausted", "finalists", "best_kept",
)  # fmt: skip
THRESHOLD: dict[str, Widget] = {
    "threshold": replace(RBF["threshold"], advanced=False),
    **{key: RBF[key] for key in _ON_THE_WAY},
    **widgets.ENDS,
}


ALIASES = (
    "best of n", "rbf", "evolutionary", "genetic", "particle search", "threshold",
    "search settings", "svdd", "code", "smc", "sequential monte carlo", "feynman-kac",
    "fk steering", "search over paths", "zero order",
)  # fmt: skip
TOOLTIP = (
    "evolutionary: the default; varies the best picture so far and exchanges what differs, for "
    "rare wishes and common ones. rbf: Rollover Budget Forcing on the way down from noise. "
    "rbf_reference: as its authors' code does it, for comparison; RBF Search (published) brings "
    "what belongs to it, here give it 2 chains, 500 evaluations, rbf_reference sigmas and a "
    "euler_maruyama sampler in Reward Search (Advanced). best_of_n: many whole "
    "pictures, for any sampler and for wishes that one picture in ten fulfils. svdd: the best of "
    "several draws at each step. code: the same every few steps. smc: particles copied and dropped "
    "by weight. search_over_paths: back up from nearly finished pictures and down again. "
    "zero_order: varies the start's noise, judged by finished pictures. threshold: goes on as soon "
    "as a draw reaches the threshold. published: the settings of the published comparison."
)


@dataclass(frozen=True)
class Choice:
    """A strategy as the node offers it.

    Attributes:
        build: Makes the strategy from the widgets' values.
        defaults: An object with the widgets' defaults as attributes.
        widgets: What can be set.
    """

    build: Callable[..., Any]
    defaults: object
    widgets: dict[str, Widget]


def _reference(pool: int = 25, finish_steps: int | None = 1) -> Published:
    strategy = replace(RolloverBudgetForcing.reference(finish_steps), pool=pool)
    return replace(published("rbf", finish_steps), strategy=strategy)


_THRESHOLD = partial(RolloverBudgetForcing, accept="threshold")
_PUBLISHED = SimpleNamespace(method=PUBLISHED[0], finish_steps=1)

CHOICES: dict[str, Choice] = {
    "evolutionary": Choice(EvolutionarySearch, EvolutionarySearch(), widgets.EVOLUTIONARY),
    "rbf": Choice(RolloverBudgetForcing, RolloverBudgetForcing(), RBF),
    "rbf_reference": Choice(_reference, SimpleNamespace(pool=25, finish_steps=1), REFERENCE),
    "best_of_n": Choice(BestOfN, BestOfN(), widgets.BEST_OF_N),
    "svdd": Choice(SVDD, SVDD(), widgets.SVDD),
    "code": Choice(CoDe, CoDe(), widgets.CODE),
    "smc": Choice(SequentialMonteCarlo, SequentialMonteCarlo(), widgets.SMC),
    "search_over_paths": Choice(SearchOverPaths, SearchOverPaths(), widgets.SEARCH_OVER_PATHS),
    "zero_order": Choice(ZeroOrderSearch, ZeroOrderSearch(), widgets.ZERO_ORDER),
    "threshold": Choice(_THRESHOLD, _THRESHOLD(), THRESHOLD),
    "published": Choice(partial(published, method=PUBLISHED[0]), _PUBLISHED, widgets.PUBLISHED_AS),
}
_MORE = {name: cls for name, cls in STRATEGIES.items() if name not in CHOICES}
CHOICES |= {name: Choice(cls, cls(), widgets.widgets_of(cls)) for name, cls in _MORE.items()}


def _widget(name: str, strategy: object, widget: Widget) -> io.Input:
    default: Any = getattr(strategy, name)
    # optional, so that a workflow in API form may name only what differs from the defaults
    flags: Any = {"optional": True, "advanced": widget.advanced, "tooltip": widget.tooltip}
    if widget.options:
        return io.Combo.Input(name, options=[*widget.options], default=default, **flags)
    if isinstance(default, bool):
        return io.Boolean.Input(name, default=default, **flags)
    if default is None or isinstance(default, int):
        low, high = int(widget.low), int(widget.high)
        return io.Int.Input(name, default=default or 0, min=low, max=high, **flags)
    return io.Float.Input(
        name, default=default, min=widget.low, max=widget.high, step=0.01, round=False, **flags
    )


def option(name: str, choice: Choice) -> io.DynamicCombo.Option:
    """Offer a choice in a list.

    Args:
        name: Its word in the list.
        choice: Its widgets and their defaults.

    Returns:
        The option, which shows the widgets.
    """
    inputs = [_widget(key, choice.defaults, w) for key, w in choice.widgets.items()]
    return io.DynamicCombo.Option(name, inputs)


def choice_of(strategy: dict[str, Any], chains: int, rows_per_call: int) -> StrategyChoice:
    """Build what the widgets say.

    Args:
        strategy: Name under "strategy", and its settings.
        chains: Independent chains an item; a published method has its own number.
        rows_per_call: Candidates in a call, 0 for automatic.

    Returns:
        The choice.

    Raises:
        ValueError: Settings that the strategy refuses.
    """
    settings: dict[str, Any] = {
        key: None if key in NONE_IS_0 and value == 0 else value
        for key, value in strategy.items()
        if key != "strategy" and value is not None  # the host says None for what is left out
    }
    name = strategy["strategy"]
    built = CHOICES[name].build(**settings)
    if not isinstance(built, Published):
        return StrategyChoice(built, chains, rows_per_call)
    chains = built.chains if name == "published" else chains
    return StrategyChoice(built.strategy, chains, rows_per_call, built)


class Strategy(io.ComfyNode):
    """How to search."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchStrategy",
            display_name="Search Strategy",
            category=CATEGORY_SEARCH,
            description=(
                "How a search spends its budget. evolutionary varies the best picture so far; rbf, "
                "threshold, svdd, code and smc choose on the way down from noise; best_of_n, "
                "zero_order and search_over_paths compare pictures that are finished or nearly so. "
                "The defaults are a good start."
            ),
            search_aliases=[*ALIASES],
            inputs=[
                io.DynamicCombo.Input(
                    "strategy",
                    options=[option(name, choice) for name, choice in CHOICES.items()],
                    tooltip=" ".join(
                        [TOOLTIP, *(f"{n}: {widgets.said_of(cls)}" for n, cls in _MORE.items())]
                    ),
                ),
                io.Int.Input(
                    "chains",
                    default=1,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip=(
                        "Independent searches of one picture that share its budget. 1: one, "
                        "thorough; many: more variety, each searched less. A published method "
                        "has its own number."
                    ),
                ),
                io.Int.Input(
                    "rows_per_call",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Candidates in one call of the model. 0: as many as the free memory "
                        "holds; 1: least memory, slowest. Halved by itself when memory runs out."
                    ),
                ),
            ],
            outputs=[FlowStrategy.Output(id="flow_strategy", display_name="strategy")],
        )

    @classmethod
    def execute(
        cls, strategy: dict[str, Any], chains: int = 1, rows_per_call: int = 0
    ) -> io.NodeOutput:
        """Build the strategy.

        Args:
            strategy: Its name and settings.
            chains: Independent chains an item.
            rows_per_call: Candidates in a call.

        Returns:
            FLOW_STRATEGY.
        """
        return io.NodeOutput(choice_of(strategy, chains, rows_per_call))


NODES = [Strategy]
