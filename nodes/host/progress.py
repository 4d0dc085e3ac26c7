"""What does a person see of a run? A bar in evaluations, how long it takes, the best so far.

A cancel or an error cannot return outputs in this host, so the best finished pictures, clips and
sounds are then written to the temp folder and shown on the node.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import comfy.utils
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from torch import Tensor

from ...samplers.search import Budget
from ...samplers.search.events import Evaluated, Event, Finished, Stopped
from .text import for_page

__all__ = ["Forecast", "Kept", "Progress", "first_that_works", "say", "show_rescued"]

PREVIEW_SIZE = 512
FPS = 16.0  # of a rescued clip: latents do not say theirs
REPEAT_SECONDS = 10.0
CHANGED = 1.5  # factor by which a forecast must change to be said again

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
        """Say what is left, and what it is reckoned from."""
        each = f"{self.each('evaluations'):.2g} s an evaluation"
        if "scores" in self._first:
            each += f", {self.each('scores'):.2g} s a score"
        return f"at most {_duration(self.left())} more ({each})"


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
        self._values: dict[int, float] = {}
        self._bar = comfy.utils.ProgressBar(self._total)
        self._forecast = Forecast(budget, items)
        self._memory, self._clock = memory, clock
        self._begun = clock()
        self._said: tuple[float, float] | None = None  # when, and how long the whole run takes

    def __call__(self, event: Event) -> None:
        """Show an event; raises if the person has pressed cancel."""
        if isinstance(event, Stopped):
            self._forecast.add(event)
        elif isinstance(event, Evaluated):
            self._forecast.add(event)
            self._spent[event.item] = event.spent
            self._show(None)
            self._foretell()
        elif isinstance(event, Finished) and event.best:
            self._values[event.item] = event.scores.value
            say(self._text())
            picture = event.scores.thumbnail
            if isinstance(picture, Tensor):
                self.best[event.item] = picture.clone()  # of a call's pictures this one alone
                self._show(picture)

    def _text(self) -> str:
        values = ", ".join(f"{value:g}" for _, value in sorted(self._values.items()))
        parts = [f"best reward {values}"] if values else []
        return "; ".join([*parts, str(self._forecast)] if self._said else parts)

    def _foretell(self) -> None:
        """Say how long it takes and what it needs: once it is known, and when that has changed."""
        if not self._forecast.known:
            return
        now = self._clock()
        whole = now - self._begun + self._forecast.left()
        if self._said is not None:
            at, before = self._said
            if now - at < REPEAT_SECONDS or before / CHANGED <= whole <= before * CHANGED:
                return
        self._said = now, whole
        say(self._text())
        _LOG.info("search: %s; memory: %s", self._forecast, self._memory())

    def finish(self) -> None:
        """Fill the bar; a search may end before its budget does."""
        self._bar.update_absolute(self._total, self._total)

    def _show(self, picture: Tensor | None) -> None:
        # the total is said again each time: decoders and rewards may have bars of their own
        preview = None if picture is None else ("JPEG", to_pil(picture), PREVIEW_SIZE)
        self._bar.update_absolute(min(sum(self._spent.values()), self._total), self._total, preview)


def to_pil(picture: Tensor) -> Image.Image:
    """Turn one picture (H, W, C), 0 to 1, into PIL's form."""
    return Image.fromarray((picture[..., :3] * 255.0).round().clamp(0, 255).byte().cpu().numpy())


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
        except Exception:
            if instead is None:
                raise
            _LOG.exception("the best could not be decoded again; a picture of it is kept")
            return instead

    return either


def show_rescued(kept: Sequence[Callable[[], Kept]]) -> list[str]:
    """Write pictures, clips and sounds to the temp folder and show them on the running node.

    Nothing that fails here may hide what went wrong before.

    Args:
        kept: Each gives one, or fails.

    Returns:
        Names of the files written.
    """
    outputs: dict[str, list[Any]] = {}
    for way in kept:
        with _logged():
            for kind, saved in _saved(way()).items():
                outputs.setdefault(kind, []).extend(saved)
    files = [entry.filename for saved in outputs.values() for entry in saved if entry is not True]
    if files:
        _LOG.warning("search ended early; best finished in temp: %s", ", ".join(files))
        with _logged():
            _send({**outputs})
    return files


@contextmanager
def _logged() -> Iterator[None]:
    """Log what fails with its place, and go on."""
    try:
        yield
    except Exception:  # noqa: BLE001 - what ended the search goes on
        _LOG.exception("of what was best something could not be written or shown")


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
    from server import PromptServer

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(for_page(text), context.node_id)


def _send(output: dict[str, object]) -> None:
    """Tell the page that the running node has an output, as the host does after a node."""
    from server import PromptServer  # the host's; absent parts of it while no server runs

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is None or context is None:
        return
    node = context.node_id
    message = {
        "node": node,
        "display_node": node,
        "output": output,
        "prompt_id": context.prompt_id,
    }
    server.send_sync("executed", message, server.client_id)
