"""A word on the node and in the log: what is not needed, and why a search cannot run."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import comfy.model_management
from comfy_execution.utils import get_executing_context

from .card import card_output
from .progress import logged, say, show
from .text import guard_errors

__all__ = ["TOLD", "remark", "says_why", "tell"]

TOLD = "flowsearch_told"  # attribute of an error of which the node has spoken

P = ParamSpec("P")
T = TypeVar("T")

_remarks: dict[tuple[str, str, int | None], tuple[str, ...]] = {}
"""Of the node that runs, and of no other."""


def remark(sentence: str) -> None:
    """Say something that is no error.

    Packs that connect every free socket (use-everywhere) fill those too that a choice makes
    needless, so what is not needed is ignored and named, and never refused.

    Args:
        sentence: Without a point at its end; empty for nothing to say.
    """
    if not sentence:
        return
    context = get_executing_context()
    run = None if context is None else (context.prompt_id, context.node_id, context.list_index)
    # what a node shows replaces what it showed
    before = () if run is None else _remarks.get(run, ())
    _remarks.clear()
    if run is not None:
        _remarks[run] = (*before, sentence)
    tell(*before, sentence)
    logging.getLogger("flowsearch").info("%s", sentence)


def tell(*sentences: str) -> None:
    """Say sentences on the running node, and let them stay there.

    Args:
        *sentences: Any.
    """
    text = "\n".join(sentences)
    say(text)
    with logged():
        show(card_output(sentences, {"said": text}))


def says_why(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function say on the running node why it fails, before it does.

    Nodes that sample in pieces (regional samplers) take a sampler's ValueError for an empty region
    and put out a latent of zeros as if all were well.

    Args:
        function: What may fail.

    Returns:
        The same, which says so.
    """

    @functools.wraps(function)
    def saying(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:
            if not getattr(error, TOLD, False):  # else with what was found by then
                sentence = f"the search did not come to its end: {error}"
                tell(sentence)
                logging.getLogger("flowsearch").error("%s", sentence)
            guard_errors(error)  # the node that runs this may be the host's or another pack's
            raise

    return saying
