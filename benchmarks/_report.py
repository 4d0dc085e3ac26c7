"""What every benchmark prints and writes: a Markdown table, claims, and JSON with the machine.

{name, command, machine, versions, seconds, rows: [{...}], claims: [{text, value, target, holds}]}
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Report", "paired_difference", "table"]


def paired_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of first - second over pairs, with a 95 % percentile bootstrap interval.

    Args:
        first: Shape (pairs,) or (seeds, prompts); prompts are resampled, seeds are averaged first.
        second: The same shape.
        draws: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        Mean, lower and upper end.
    """
    difference = np.atleast_2d(first - second).mean(axis=0)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(difference), size=(draws, len(difference)))
    low, high = np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; the keys of the first row are the columns."""

    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


@dataclass
class Report:
    """Collects rows and claims of one benchmark run.

    Args:
        name: The benchmark's name.
    """

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def claim(self, text: str, value: float, target: float, holds: bool) -> None:
        """Add a number that an issue or the README names, and whether it holds."""
        self.claims.append({"text": text, "value": value, "target": target, "holds": bool(holds)})

    def as_json(self) -> dict[str, Any]:
        """The whole record."""
        return {
            "name": self.name,
            "command": f"python scripts/dev.py bench {self.name} " + " ".join(sys.argv[1:]),
            "machine": {
                "system": platform.system(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "seconds": round(time.time() - self.started, 1),
            "rows": self.rows,
            "claims": self.claims,
        }

    def finish(self, path: Path | None) -> None:
        """Print the rows, a table for each value of "part", and the claims; write the JSON.

        Args:
            path: Where to write it; None for nowhere.
        """
        record = self.as_json()
        print(f"\n{record['command']}\n{record['machine']} {record['versions']}\n")
        for part in dict.fromkeys(row.get("part") for row in self.rows):
            print(table([row for row in self.rows if row.get("part") == part]), end="\n\n")
        for claim in self.claims:
            print(f"[{'holds' if claim['holds'] else 'DOES NOT HOLD'}] {claim['text']}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(f"written to {path}")
