"""The real host at COMFYUI_PATH (`dev.py bench` sets it), without its server."""

from __future__ import annotations

import os
import sys
import tempfile

__all__ = ["enter"]

_BASE = tempfile.TemporaryDirectory(prefix="flowsearch-bench-", ignore_cleanup_errors=True)


def enter(cpu: bool) -> None:
    """Put the host on the path, with a folder of its own for what it writes.

    Args:
        cpu: Whether it computes on the CPU in any case.

    Raises:
        SystemExit: COMFYUI_PATH is not set.
    """
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        raise SystemExit("COMFYUI_PATH is not set: run this with python scripts/dev.py bench")
    sys.path.insert(0, path)
    from comfy.cli_args import args

    args.cpu = cpu
    args.base_directory = _BASE.name
    args.disable_api_nodes = True
    from comfy.utils import set_progress_bar_enabled

    set_progress_bar_enabled(False)
