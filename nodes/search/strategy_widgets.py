"""What the Search Strategy node shows of each strategy: one table a strategy, one row a setting.

Names, defaults and checks are the engine's; the tables add what a widget needs. A setting that is
not in its strategy's table keeps the engine's default. A strategy without a table is shown by what
it says of itself: the sentences of its docstring, and ranges by the types of its settings.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ...samplers.search.strategies.published import PUBLISHED
from ...samplers.search.strategies.resampling import SCHEMES
from ...samplers.search.strategies.smc import POTENTIALS, RESAMPLE, TEMPERING

__all__ = [
    "BEST_OF_N",
    "CODE",
    "COUNT",
    "EVOLUTIONARY",
    "FINISH_STEPS",
    "PLAIN",
    "PUBLISHED_AS",
    "SEARCH_OVER_PATHS",
    "SMC",
    "SVDD",
    "TARGET_STOP",
    "WIDTH",
    "ZERO_ORDER",
    "Widget",
    "said_of",
    "widgets_of",
]

COUNT = 100_000


@dataclass(frozen=True)
class Widget:
    """How a setting is shown: a combo with options, a switch, a whole number or a fraction."""

    tooltip: str
    low: float = 0.0
    high: float = 1.0
    options: tuple[str, ...] = ()
    advanced: bool = True


WIDTH = Widget(
    "Candidates drawn, predicted and scored together. 1: each decision sees the last one, slowest; "
    "many: faster on a GPU, coarser decisions.",
    1,
    1024,
    advanced=False,
)
PLAIN = Widget(
    "Take the plain sample of the seed first, so that there is always a finished picture and a "
    "baseline. Off: its evaluations go into the search."
)
TARGET_STOP = Widget(
    "Stop as soon as a finished picture reaches the target. Off: use the whole budget."
)
FINISH_STEPS = Widget(
    "Steps from the search's result to the finished picture, without noise. 0: the schedule's own "
    "remaining steps; 1: jump to the prediction, blurred unless the model is distilled; many: "
    "finer.",
    0,
    COUNT,
)
Q = Widget(
    "How much of its noise a draw keeps, 0 to 1. Near 1: small changes; near 0: nearly a new "
    "picture each time; exactly 0: as the connected sampler's noise law says.",
    advanced=False,
)
SCORE_BELOW = Widget(
    "Predictions above this sigma are not scored: there they do not yet show the picture. 1: score "
    "all (few-step models); low: decide late, only details differ.",
    advanced=False,
)
SIGMA_HIGH = Widget(
    "Draws start at or below this sigma. High: composition may change; low: details only."
)
SIGMA_LOW = Widget(
    "Decisions are made above this sigma. High: the last part is left to the plain sampler and "
    "costs little; 0: decide to the end."
)
FINALISTS = Widget(
    "Candidates of the last searched step that are finished. 1: cheapest; many: predictions that "
    "mislead do less harm.",
    1,
    1024,
)
CANDIDATES = Widget(
    "Draws compared at each step, fewer where the budget has no room. 0: the budget shared out in "
    "one search; few: many searches from new noise, each searched less.",
    0,
    COUNT,
    advanced=False,
)
ENDS: dict[str, Widget] = {
    "finish_steps": FINISH_STEPS,
    "plain": PLAIN,
    "target_stop": TARGET_STOP,
}

EVOLUTIONARY: dict[str, Widget] = {
    "width": WIDTH,
    "mixes": Widget(
        "Exchanges tried between a draft and the picture it came from. Each is a reward call and "
        "no evaluation. 0: none, for slow or paid rewards; many: more is made of each draft.",
        0,
        1024,
        advanced=False,
    ),
    "level_low": Widget(
        "Lowest sigma that the best picture is noised up to, as a part of the first one; above "
        "draft_sigma. Low: details change; high: composition.",
        0.01,
        0.99,
    ),
    "level_high": Widget(
        "Highest sigma that the best picture is noised up to, as a part of the first one. Low: "
        "stays near; near 1: nearly a new picture.",
        0.01,
        0.99,
    ),
    "levels": Widget(
        "Levels between level_low and level_high to choose from; the search learns which helps. 1: "
        "level_low only; many: slower to learn.",
        1,
        64,
    ),
    "steps": Widget(
        "Evaluations of a draft. 2: cheapest; many: fewer drafts, nearer to the finished picture.",
        2,
        COUNT,
    ),
    "draft_sigma": Widget(
        "Sigma at which a draft is judged by its prediction, as a part of the first one. High: "
        "steps near each other, predictions soft; low: the draft is nearly the finished picture.",
        0.01,
        0.98,
    ),
    "fresh": Widget(
        "Also take pictures from new noise, where that helps more. Off: stay with the family of "
        "the first picture."
    ),
    "finish_steps": FINISH_STEPS,
    "plain": PLAIN,
    "target_stop": TARGET_STOP,
}
BEST_OF_N: dict[str, Widget] = {
    "width": WIDTH,
    "candidates": Widget(
        "Pictures to compare, the plain sample not counted. 0: as many as the budget allows.",
        0,
        COUNT,
        advanced=False,
    ),
    "plain": PLAIN,
    "target_stop": TARGET_STOP,
}
SVDD: dict[str, Widget] = {
    "candidates": CANDIDATES,
    "q": Q,
    "score_below": SCORE_BELOW,
    "width": replace(WIDTH, advanced=True),
    "sigma_high": SIGMA_HIGH,
    "sigma_low": SIGMA_LOW,
    "finalists": FINALISTS,
    **ENDS,
}
CODE: dict[str, Widget] = {
    "block": Widget(
        "Steps that the draws of one comparison take before they are scored. 1: as svdd; many: "
        "fewer rewards, later and surer ones, and fewer choices; 0: the whole way, scored "
        "finished.",
        0,
        COUNT,
        advanced=False,
    ),
    **SVDD,
}
SMC: dict[str, Widget] = {
    "particles": Widget(
        "Pictures that come down together and are resampled by weight. Few: more passes from new "
        "noise; many: more choice in one pass, and more memory. More budget gives more passes.",
        1,
        4096,
        advanced=False,
    ),
    "strength": Widget(
        "Weight of the reward: a picture that is better by 1 counts exp(strength) times as much. "
        "0: plain samples; high: the best particle takes all. Rewards of small differences need "
        "more.",
        0.0,
        1e6,
        advanced=False,
    ),
    "q": Q,
    "score_below": SCORE_BELOW,
    "potential": Widget(
        "What a particle is judged by on the way. difference: its last prediction; max: its best "
        "prediction so far; sum: all of them. The finished picture decides in the end.",
        options=POTENTIALS,
    ),
    "resample": Widget(
        "When particles are copied and dropped by weight. adaptive: when too few carry the weight "
        "(ess_threshold); always: at every scored step; never: weights only.",
        options=RESAMPLE,
    ),
    "ess_threshold": Widget(
        "Part of the particles that must carry the weight, as an effective number. 0: never "
        "resample; 1: at practically every step (not with adaptive tempering)."
    ),
    "scheme": Widget(
        "How ancestors are drawn. systematic: least chance; stratified and residual: a little "
        "more; multinomial: each by itself, as in the papers.",
        options=tuple(SCHEMES),
    ),
    "tempering": Widget(
        "How strength grows on the way. adaptive: as fast as ess_threshold allows; linear: in "
        "equal parts; none: full from the first scored step.",
        options=TEMPERING,
    ),
    "sigma_low": SIGMA_LOW,
    **ENDS,
}
SEARCH_OVER_PATHS: dict[str, Widget] = {
    "starts": Widget(
        "Pictures that are brought nearly down first, from new noise. 1: one path; many: a wide "
        "choice, and less budget for the rounds.",
        1,
        COUNT,
        advanced=False,
    ),
    "keep": Widget(
        "Paths that go on after each round. 1: only the best; many: more variety, each searched "
        "less.",
        1,
        1024,
        advanced=False,
    ),
    "candidates": Widget(
        "Tries from each kept path in a round. 1: one; many: more choice in each round, fewer "
        "passes.",
        1,
        COUNT,
        advanced=False,
    ),
    "sigma_first": Widget(
        "Where the first paths are compared. Low: predictions there show the picture; high: "
        "cheaper, less sure.",
        0.001,
        0.999,
    ),
    "up": Widget(
        "How much sigma rises in a round. High: composition may change; low: details only.",
        0.001,
        1.0,
    ),
    "down": Widget(
        "How much sigma falls again, above up. A little more than up: many rounds; much more: few.",
        0.002,
        2.0,
    ),
    "leg": Widget(
        "Evaluations of one way down. 0: the schedule's own sigmas; few: cheap and coarse; many: "
        "fine.",
        0,
        COUNT,
    ),
    "width": replace(WIDTH, advanced=True),
    **ENDS,
}
ZERO_ORDER: dict[str, Widget] = {
    "candidates": Widget(
        "Neighbours tried before the search moves to the best. 1: moves at once; many: moves "
        "seldom, and further.",
        1,
        COUNT,
        advanced=False,
    ),
    "q": Widget(
        "How much of the start's noise a neighbour keeps. Near 1: nearly the same picture; near 0: "
        "nearly a new one.",
        0.01,
        0.999,
        advanced=False,
    ),
    "widen": Widget(
        "Factor of the part of new noise after a round that found nothing better. 1: the "
        "neighbourhood stays; 2: soon as wide as new noise.",
        1.0,
        1000.0,
        advanced=False,
    ),
    "width": replace(WIDTH, advanced=True),
    "plain": PLAIN,
    "target_stop": TARGET_STOP,
}
PUBLISHED_AS: dict[str, Widget] = {
    "method": Widget(
        "Method as it was run in arXiv:2503.19385; sets chains too. Give all of them 500 "
        "evaluations and 10 steps. best_of_n and search_over_paths: Flow Sigmas linear, noise law "
        "ode. The others: Flow Sigmas rbf_reference, transition euler_maruyama, interpolant vp, "
        "noise law rbf_reference.",
        options=PUBLISHED,
        advanced=False,
    ),
    "finish_steps": FINISH_STEPS,
}

_SHARED = {"width": WIDTH, **ENDS}
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def said_of(strategy: type[Any]) -> str:
    """Return what a strategy says of itself: the first paragraph of its docstring."""
    text = inspect.getdoc(strategy) or ""
    is_made = text.startswith(f"{strategy.__name__}(")  # by dataclass, where nobody wrote one
    return strategy.name if is_made or not text else text.split("\n\n")[0].replace("\n", " ")


def widgets_of(strategy: type[Any]) -> dict[str, Widget]:
    """Make the widgets of a strategy that has no table here.

    Args:
        strategy: A frozen dataclass; its docstring says under Attributes what each setting is.

    Returns:
        A switch for a bool, a list for a Literal, 0 to 100,000 for a whole number or None, and 0 to
        1 for a fraction; what all strategies share in the words of all.
    """
    _, _, attributes = (inspect.getdoc(strategy) or "").partition("Attributes:\n")
    said = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(attributes)}
    hints = get_type_hints(strategy)
    found: dict[str, Widget] = {}
    for field in fields(strategy):
        name, hint = field.name, hints[field.name]
        options = get_args(hint) if get_origin(hint) is Literal else ()
        high = 1.0 if hint is float else COUNT
        default: Any = field.default
        if hint is float and not 0.0 <= default <= high:
            raise ValueError(
                f"{strategy.name}: {name} is {default}, and a fraction goes from 0 to 1; "
                "give it its range in a table of nodes/search/strategy_widgets.py"
            )
        widget = Widget(said.get(name, name), 0, high, options, advanced=False)
        found[name] = _SHARED.get(name, widget)
    return found
