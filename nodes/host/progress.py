"""What does a person see of a run? A bar in evaluations, and the best picture so far.

A cancel or an error cannot return outputs in this host, so the best finished pictures are then
written to the temp folder and shown on the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import comfy.utils
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from torch import Tensor

from ...samplers.search.events import Evaluated, Event, Finished

__all__ = ["Progress", "say", "show_rescued"]

PREVIEW_SIZE = 512

_LOG = logging.getLogger("flowsearch")


class Progress:
    """Turns a run's events into the host's progress bar.

    Attributes:
        best: The best finished picture of each item that was decoded in this process.
    """

    def __init__(self, evaluations: int, items: int) -> None:
        """Make the bar.

        Args:
            evaluations: Budget of one item.
            items: Batch items.
        """
        self.best: dict[int, Tensor] = {}
        self._total = evaluations * items
        self._spent: dict[int, int] = {}
        self._values: dict[int, float] = {}
        self._bar = comfy.utils.ProgressBar(self._total)

    def __call__(self, event: Event) -> None:
        """Show an event; raises if the person has pressed cancel."""
        if isinstance(event, Evaluated):
            self._spent[event.item] = event.spent
            self._show(None)
        elif isinstance(event, Finished) and event.best:
            self._values[event.item] = event.scores.value
            say(f"best reward {', '.join(f'{v:g}' for _, v in sorted(self._values.items()))}")
            picture = event.scores.thumbnail
            if isinstance(picture, Tensor):
                self.best[event.item] = picture
                self._show(picture)

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


def show_rescued(pictures: Sequence[Callable[[], Tensor]]) -> list[str]:
    """Write pictures to the temp folder and show them on the node that is running.

    Nothing that fails here may hide what went wrong before.

    Args:
        pictures: Each gives one picture (H, W, C), or fails.

    Returns:
        Names of the files written.
    """
    try:
        decoded = [picture() for picture in pictures]
        if not decoded:
            return []
        saved = ui.ImageSaveHelper.save_images(
            decoded, "flowsearch_best", io.FolderType.temp, cls=None, compress_level=1
        )
        _send({"images": [*saved]})
        _LOG.warning("search ended early; best finished picture in temp: %s", saved[0].filename)
        return [entry.filename for entry in saved]
    except Exception:  # noqa: BLE001 - logged with its place; the first failure goes on
        _LOG.exception("the best finished picture could not be written")
        return []


def say(text: str) -> None:
    """Show a line of text under the running node's title."""
    from server import PromptServer

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(text, context.node_id)


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
