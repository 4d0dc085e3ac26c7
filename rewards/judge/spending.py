"""How much was a judge asked today, by anybody here? Counted on disk, across runs and servers.

A workflow that somebody shares spends the user's key, and so may a search that is queued again and
again. A day's calls are a file that grows by one byte each, its costs one that grows by a number
each. Where a byte came to lie is the call's number. Inside one server a lock makes that exact. Of
several servers with one folder on a local disk, those of Linux and macOS append one after the other
and never pass the ceiling together; on Windows and on network disks two that ask in the same moment
may write the same byte, and a ceiling may then be passed by a call for each other server.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from .config import Endpoint

__all__ = ["Spending"]

COST = struct.Struct("<d")
_LOCK = threading.Lock()  # of all files: clients of one judge may be several


def _today() -> str:
    return datetime.date.today().isoformat()


class Spending:
    """Calls and cost of judges, by day."""

    def __init__(self, folder: Path, today: Callable[[], str] = _today) -> None:
        """Keep where; nothing is written.

        Args:
            folder: Of these files and no others; made when it is needed.
            today: The date, as text.
        """
        self._folder, self._today = folder, today

    def call(self, endpoint: Endpoint) -> None:
        """Count one question, which is then asked.

        Args:
            endpoint: Who is asked.

        Raises:
            ValueError: It would be more than the ceilings of the day, or cannot be counted.
        """
        number = self._appended(self._file(endpoint, "calls"), b".")
        most = endpoint.calls_per_day
        if most and number > most:
            raise ValueError(
                f"the judge '{endpoint.name}' was asked {most} times today, which is its ceiling "
                "of calls; nothing more is sent before midnight. Raise calls_per_day in "
                "judges.yaml, 0 for no ceiling, or limit the search's reward calls."
            )
        spent = self.cost(endpoint)
        if endpoint.cost_per_day and spent >= endpoint.cost_per_day:
            raise ValueError(
                f"the judge '{endpoint.name}' has cost {spent:.4g} today, and its ceiling is "
                f"{endpoint.cost_per_day:g}; nothing more is sent before midnight. Raise "
                "cost_per_day in judges.yaml, 0 for no ceiling, or limit the search's reward calls."
            )

    def paid(self, endpoint: Endpoint, cost: float | None) -> None:
        """Count what an answer cost.

        Args:
            endpoint: Who was asked.
            cost: By its prices; None where it is not known.
        """
        if cost and math.isfinite(cost):
            self._appended(self._file(endpoint, "costs"), COST.pack(cost))

    def calls(self, endpoint: Endpoint) -> int:
        """How often a judge was asked today, refused questions included."""
        return len(self._read(endpoint, "calls"))

    def cost(self, endpoint: Endpoint) -> float:
        """What a judge has cost today."""
        written = self._read(endpoint, "costs")
        whole = written[: len(written) // COST.size * COST.size]
        return math.fsum(value for (value,) in COST.iter_unpack(whole))

    def _file(self, endpoint: Endpoint, what: str) -> Path:
        name = hashlib.sha256(endpoint.name.encode("utf-8", "replace")).hexdigest()[:16]
        return self._folder / f"{self._today()}.{name}.{what}"

    def _read(self, endpoint: Endpoint, what: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self._file(endpoint, what).read_bytes()
        return b""

    def _appended(self, file: Path, written: bytes) -> int:
        """Append to a file; return how many of such pieces it holds up to this one."""
        try:
            if not file.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._forget()
            with _LOCK, open(file, "ab", buffering=0) as opened:
                opened.write(written)
                return opened.tell() // len(written)
        except OSError as error:
            raise ValueError(
                f"calls of judges are counted in {self._folder}, which cannot be written "
                f"({error.strerror}), so nothing is sent. Make the folder writable."
            ) from None

    def _forget(self) -> None:
        """Delete the files of earlier days."""
        for old in self._folder.glob("*.*.c*s"):
            if old.name[:10] < self._today():
                with contextlib.suppress(OSError):
                    os.unlink(old)
