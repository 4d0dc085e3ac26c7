"""What does a person see of a run? A bar in evaluations, how long it takes, the best so far.

A cancel or an error cannot return outputs in this host, so the best finished pictures, clips and
sounds are then written to the temp folder and shown on the node.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ....samplers.search import Budget
from ....samplers.search.account.events import Evaluated, Event, Finished, Stopped
from . import card
from .card import to_pil
from .running import running_node
from .text import for_page

__all__ = [
    "Forecast",
    "Kept",
    "Progress",
    "first_that_works",
    "logged",
    "say",
    "show",
    "show_rescued",
    "stills_of",
]

PREVIEW_SIZE = 512
FPS = 16.0  # of a rescued clip: latents do not say theirs
REPEAT_SECONDS = 10.0  # between two lines of the log
CHANGED = 1.5  # factor by which a forecast must change to be said again
SAY_SECONDS = 0.5
NAMED = 8  # items of a batch whose scores are said one by one
NOTHING = "no picture was finished by then"

_LOG = logging.getLogger("flowsearch")

Kept: TypeAlias = Tensor | dict[str, Any]
"""A picture (H, W, C), clips (1, T, H, W, C), or the host's AUDIO of one sound."""


class Forecast:
    """How long a run takes, from what its evaluations and scores have taken so far."""

    def __init__(self, budget: Budget, items: int) -> None:
        """Know nothing yet.

        Args:
            budget: What may be spent.
            items: Batch items.
        """
        self._budget = budget
        self._left = dict.fromkeys(range(items), budget.evaluations)
        self._counts = {"evaluations": 0, "scores": 0}
        self._seconds = {"evaluations": 0.0, "scores": 0.0}
        self._first: dict[str, float] = {}
        self._rate = 1.0
        self._spent = 0.0

    def add(self, event: Evaluated | Stopped) -> None:
        """Take note of a candidate, or of an item's end.

        Args:
            event: The event.
        """
        if isinstance(event, Stopped):
            self._left[event.item] = 0
            return
        self._spent += event.seconds
        self._add("evaluations", event.evaluations, event.seconds - event.score_seconds)
        self._add("scores", int(event.scores is not None), event.score_seconds)
        if event.evaluations:
            self._rate = max(self._rate, event.rows / event.evaluations)
        most = self._budget.evaluations
        if self._budget.rows is not None:
            most = min(most, int(self._budget.rows / self._rate))
        self._left[event.item] = max(0, most - event.spent)

    def _add(self, what: str, count: int, seconds: float) -> None:
        """The first of its kind also loads and compiles things: it counts only while alone."""
        if count and what not in self._first:
            self._first[what] = seconds / count
            return
        self._counts[what] += count
        self._seconds[what] += seconds

    def each(self, what: str) -> float:
        """Return the seconds of one of "evaluations" or "scores"."""
        count = self._counts[what]
        return self._seconds[what] / count if count else self._first.get(what, 0.0)

    def left(self) -> float:
        """Return the seconds that the rest of the budget takes."""
        rest, done = sum(self._left.values()), self._counts["evaluations"] + 1
        scores = rest * (self._counts["scores"] + ("scores" in self._first)) / done
        seconds = rest * self.each("evaluations") + scores * self.each("scores")
        limit = self._budget.seconds
        return seconds if limit is None else min(seconds, max(0.0, limit - self._spent))

    @property
    def known(self) -> bool:
        """Whether a second call has been seen."""
        return self._counts["evaluations"] > 0

    def __str__(self) -> str:
        """Say what is left."""
        return f"about {_duration(self.left())} left"

    def rates(self) -> str:
        """Say what it is reckoned from, for the log."""
        each = f"{self.each('evaluations'):.2g} s an evaluation"
        return f"{each}, {self.each('scores'):.2g} s a score" if "scores" in self._first else each


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Turns a run's events into the host's progress bar and a line of text.

    Attributes:
        best: The best finished picture of each item that was decoded in this process.
    """

    def __init__(
        self,
        budget: Budget,
        items: int,
        memory: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the bar.

        Args:
            budget: Budget of one item.
            items: Batch items.
            memory: Says what memory the run needs.
            clock: Seconds.
        """
        self.best: dict[int, Tensor] = {}
        self._total = budget.evaluations * items
        self._spent: dict[int, int] = {}
        self._gradients = 0
        self._values: dict[int, float] = {}
        self._plain: dict[int, float] = {}
        self._bar = comfy.utils.ProgressBar(self._total)
        self._forecast = Forecast(budget, items)
        self._memory, self._clock = memory, clock
        self._begun = clock()
        self._said_at = -math.inf
        self._foretold: tuple[float, float] | None = None  # when, and how long the whole run takes
        say(f"0 of {self._total} evaluations; waiting for the first, which also loads things")

    def __call__(self, event: Event) -> None:
        """Show an event; raises if the person has pressed cancel."""
        if isinstance(event, Stopped):
            self._forecast.add(event)
        elif isinstance(event, Evaluated):
            self._forecast.add(event)
            self._spent[event.item] = event.spent
            self._gradients += event.gradients
            if event.phase == "plain" and event.sigma == 0.0 and event.scores is not None:
                self._plain[event.item] = event.scores.value
            self._show(None)
            self._foretell()
            self._say(often=False)
        elif isinstance(event, Finished) and event.best:
            self._values[event.item] = event.scores.value
            self._say()
            picture = event.scores.thumbnail
            if isinstance(picture, Tensor):
                self.best[event.item] = picture.clone()  # of a call's pictures this one alone
                self._show(picture)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._begun

    def used(self) -> str:
        """Say what was spent and found so far."""
        asked = f", {self._gradients} gradients" if self._gradients else ""
        parts = [f"{sum(self._spent.values())} of {self._total} evaluations{asked}"]
        for what, values in (("best score", self._values), ("plain score", self._plain)):
            if values:
                first = [f"{value:.4g}" for _, value in sorted(values.items())]
                rest = [f"{len(first) - NAMED} more"] if len(first) > NAMED else []
                parts.append(f"{what} {', '.join([*first[:NAMED], *rest])}")
        return "; ".join(parts)

    def _say(self, often: bool = True) -> None:
        """Say where it stands; not more often than a person reads, unless there is news."""
        now = self._clock()
        if often or now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            say("; ".join([self.used(), *([str(self._forecast)] if self._forecast.known else [])]))

    def _foretell(self) -> None:
        """Log how long it takes and what it needs: once it is known, and when that has changed."""
        if not self._forecast.known:
            return
        now = self._clock()
        whole = now - self._begun + self._forecast.left()
        if self._foretold is not None:
            at, before = self._foretold
            if now - at < REPEAT_SECONDS or before / CHANGED <= whole <= before * CHANGED:
                return
        self._foretold = now, whole
        told = f"{self._forecast} ({self._forecast.rates()})"
        _LOG.info("search: %s; memory: %s", told, self._memory())

    def finish(self) -> None:
        """Fill the bar; a search may end before its budget does."""
        self._bar.update_absolute(self._total, self._total)

    def _show(self, picture: Tensor | None) -> None:
        # the total is said again each time: decoders and rewards may have bars of their own
        preview = None if picture is None else ("JPEG", to_pil(picture), PREVIEW_SIZE)
        self._bar.update_absolute(min(sum(self._spent.values()), self._total), self._total, preview)


def first_that_works(way: Callable[[], Kept], instead: Kept | None) -> Callable[[], Kept]:
    """Return what gives a thing, or another where that fails.

    Args:
        way: Gives it, or fails.
        instead: Given then; None to fail.

    Returns:
        A function without arguments.
    """

    def either() -> Kept:
        try:
            return way()
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception:
            if instead is None:
                raise
            _LOG.exception("the best could not be decoded again; a picture of it is kept")
            return instead

    return either


def show_rescued(kept: Sequence[Callable[[], Kept]], told: str, after: str = "") -> list[str]:
    """Write pictures, clips and sounds to the temp folder, and say and show so on the running node.

    Nothing that fails here may hide what went wrong before.

    Args:
        kept: Each gives one, or fails.
        told: What happened, in words.
        after: What a person can do.

    Returns:
        Names of the files written.
    """
    outputs: dict[str, list[Any]] = {}
    pictures: list[Tensor] = []
    for way in kept:
        with logged():
            one = way()
            for kind, saved in _saved(one).items():
                outputs.setdefault(kind, []).extend(saved)
            pictures += stills_of(one)
    files = [entry.filename for saved in outputs.values() for entry in saved if entry is not True]
    where = f"the best so far is in ComfyUI's temp folder: {', '.join(files)}" if files else NOTHING
    lines = [told, where, *([after] if after else [])]
    _LOG.warning("search: %s", "; ".join(lines))
    with logged():
        say("\n".join(lines))
        # a picture is on the card with the words; a clip and a sound are played beside it
        drawn = card.card_output(lines, {"files": files}, card.draw_card(lines, pictures))
        clips = outputs.get("images", []) if outputs.get("animated") else []
        show({**outputs, **drawn, "images": [*clips, *drawn["images"]]})
    return files


def stills_of(kept: Kept) -> list[Tensor]:
    """Return a picture (H, W, C) of what was kept: the middle one of a clip, none of a sound."""
    if isinstance(kept, dict):
        return []
    return [kept[0, kept.shape[1] // 2] if kept.ndim == 5 else kept]


@contextmanager
def logged() -> Iterator[None]:
    """Log what fails with its place, and go on: what was found, or what went wrong, matters more.

    Yields:
        Nothing.
    """
    try:
        yield
    except comfy.model_management.InterruptProcessingException:  # an Exception in older hosts
        raise
    except Exception:  # noqa: BLE001 - nothing that is shown is worth a result
        _LOG.exception("of what was found something could not be written or shown")


def _saved(kept: Kept) -> dict[str, list[Any]]:
    """Write one, and return what the page is told of it, as the host's own nodes tell it."""
    name, temp = "flowsearch_best", io.FolderType.temp
    if isinstance(kept, dict):
        return {"audio": ui.AudioSaveHelper.save_audio(kept, name, temp, cls=None)}
    frames = kept[0] if kept.ndim == 5 else kept[None]
    if len(frames) == 1:
        saved = ui.ImageSaveHelper.save_images([*frames], name, temp, cls=None, compress_level=1)
        return {"images": [*saved]}
    clip = ui.ImageSaveHelper.save_animated_webp(
        frames, name, temp, cls=None, fps=FPS, lossless=False, quality=90, method=4
    )
    return {"images": [clip], "animated": [True]}


def say(text: str) -> None:
    """Show a line of text under the running node's title; it comes through the door (text.py)."""
    if asked := _asked():
        server, _, node = asked
        server.send_progress_text(for_page(text), node, server.client_id)


def show(output: dict[str, Any]) -> None:
    """Tell the page that the running node has an output, as the host does after a node."""
    if asked := _asked():
        server, context, node = asked
        message = {
            "node": context.node_id,
            "display_node": node,
            "output": output,
            "prompt_id": context.prompt_id,
        }
        server.send_sync("executed", message, server.client_id)


def _asked() -> tuple[Any, Any, str] | None:
    """The server, what it runs, and the node that the page has for it; None where no page asked.

    Without a client all open pages would be told, and each would show it on whatever node of its
    own has the same id.
    """
    from server import PromptServer  # the host's; absent parts of it while no server runs

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is None or context is None or getattr(server, "client_id", None) is None:
        return None
    running = running_node()  # which may have been made for the one that the page has
    return server, context, context.node_id if running is None else running[0]
