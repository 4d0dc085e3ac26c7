"""Real weights that a developer may have: tests that want them skip where they are not."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def real(name: str) -> Path:
    """Find a file below FLOWSEARCH_TEST_WEIGHTS, by default shared/weights beside the checkout."""
    default = ROOT.parent / "shared" / "weights"
    path = Path(os.environ.get("FLOWSEARCH_TEST_WEIGHTS") or default) / name
    if not path.exists():
        pytest.skip(f"{name} is not in {path.parent}; set FLOWSEARCH_TEST_WEIGHTS to its folder")
    return path
