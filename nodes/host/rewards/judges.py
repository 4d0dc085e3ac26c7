"""The user's judges: user/__flowsearch/judges.yaml, and one client for each.

The folder is named like the host's own "system users", which no request is served from. A workflow
holds a judge's name and nothing else of it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import comfy.model_management
import folder_paths

from ....rewards.judge.client import JudgeClient
from ....rewards.judge.config import EXAMPLE, Endpoint, read_endpoints
from ....rewards.judge.spending import Spending
from ..page.text import for_page

__all__ = ["client", "complaint", "file", "find", "names"]


def file() -> Path:
    """Where judges are configured.

    Returns:
        The path of the file, which need not be there.
    """
    return Path(folder_paths.get_user_directory()) / "__flowsearch" / "judges.yaml"


def _configured() -> dict[str, Endpoint]:
    """Every judge of the file; none without one."""
    path = file()
    if not path.is_file():
        return {}
    try:
        return read_endpoints(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def names() -> list[str]:
    """Names for a list.

    Returns:
        Those of the file in its order; none where there is no file or it is wrong.
    """
    try:
        return list(_configured())
    except ValueError:
        return []  # `complaint` says why when the workflow is queued


def find(name: str) -> Endpoint:
    """Look a judge up.

    Args:
        name: As the workflow says it.

    Returns:
        The judge.

    Raises:
        ValueError: It is not configured, or the file is wrong; the message says what to write.
    """
    known = _configured()
    if name in known:
        return known[name]
    there = f"It has {', '.join(known)}." if known else "There is none yet."
    raise ValueError(
        f"the judge '{name}' is not in {file()}. {there} A judge is a server of yours, or one "
        "that you pay, to which pictures are sent; so it is configured there and not in a "
        f"workflow. For Ollama on this machine, for example:\n{EXAMPLE}"
        "The help page of the node has all fields. Then press R in the page."
    )


def complaint(name: str | None) -> str | Literal[True]:
    """Answer for the node's validate_inputs.

    Args:
        name: As the workflow says it; None where another node will, which is not known yet.

    Returns:
        True when it can be asked, else why not.
    """
    if name is None:
        return True
    try:
        find(name).key()
    except ValueError as error:
        return for_page(str(error))
    return True


@functools.lru_cache(maxsize=32)
def client(endpoint: Endpoint) -> JudgeClient:
    """Return the one client of a judge, so that its rate holds for all nodes.

    Args:
        endpoint: The judge.

    Returns:
        A client that a cancel interrupts.
    """
    checkpoint = comfy.model_management.throw_exception_if_processing_interrupted
    spending = Spending(file().parent / "judge_calls")
    return JudgeClient(endpoint, checkpoint, spending=spending)
