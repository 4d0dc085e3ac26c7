"""Load the pack as the host does, and mark every test by the folder it lies in.

Everything is imported as `flowsearch.<package>.<module>`. The checkout itself must not be on
sys.path: our package `nodes` would hide the host's nodes.py there.
"""

import gc
import os
from pathlib import Path

import pytest

from devtools.pack import load_pack

ROOT = Path(__file__).resolve().parents[1]
TIERS = ("statistical", "rewards", "host", "browser", "gpu")  # tests/unit carries no mark

os.environ.setdefault("HF_HUB_OFFLINE", "1")
load_pack(ROOT)


def pytest_collection_modifyitems(items):
    """Mark the tests of tests/host with `host`, and so on."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in TIERS:
            item.add_marker(getattr(pytest.mark, folder))


def pytest_collection_finish():
    """Take what all tests share out of the rounds of the garbage collector."""
    gc.collect()
    gc.freeze()
