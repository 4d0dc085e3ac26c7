"""A lock between processes that the operating system releases when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from devtools import say

_HELD: list[int] = []


def held_handles() -> tuple[int, ...]:
    """Handles of the locks held, for subprocess's pass_fds.

    A child that has them keeps the lock for as long as it lives, so nobody starts over while the
    orphan of a killed run still writes. Windows has no such thing.

    Returns:
        The handles; none on Windows.
    """
    return () if sys.platform == "win32" else tuple(_HELD)


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, why: str, poll: float = 0.5) -> Iterator[None]:
    """Hold the lock file at `path`; wait, and say so once, while another process holds it.

    The file stays behind on purpose: deleting it would let a third process lock a new file of the
    same name while the second still holds the old one. A file left by a dead process is not locked.

    Args:
        path: The lock file; its folder is made.
        why: What the other process is probably doing, for the message.
        poll: Seconds between attempts.

    Yields:
        Nothing; the lock is held inside the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle):
            say(f"another run is {why}; waiting for it ({path})")
            while not _try_lock(handle):
                time.sleep(poll)
        _HELD.append(handle)
        yield
    finally:
        if handle in _HELD:
            _HELD.remove(handle)
        os.close(handle)
