"""Which node is the host executing, and in what workflow?"""

from __future__ import annotations

from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

__all__ = ["running_node"]


def running_node() -> tuple[str, dict[str, Any]] | None:
    """Return the node that is executed, or whose fingerprint is asked for, and its workflow.

    Returns:
        The id of the node that the page shows (of one that was made while the workflow runs, the
        one that it was made for), and the workflow in API form: the host's own, which its saving
        nodes write into files. None outside of a workflow.
    """
    context, state = get_executing_context(), get_progress_state()
    if context is None or state.prompt_id != context.prompt_id:
        return None
    node = state.dynprompt.get_display_node_id(context.node_id)
    return str(node), state.dynprompt.get_original_prompt()
