"""Rewards without the host: which transformers this is, and where CLIP's vocabulary lies."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest


def pytest_sessionstart():
    """Refuse to test another transformers than was asked for."""
    wanted = os.environ.get("FLOWSEARCH_TRANSFORMERS", "")
    if wanted and wanted != f"transformers=={version('transformers')}":
        pytest.exit(f"{wanted} was asked for and transformers {version('transformers')} is here", 2)


@pytest.fixture(scope="session")
def clip_vocabulary() -> Path:
    """Folder of CLIP's tokenizer, as the host ships it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.exit("COMFYUI_PATH is not set: run these tests with python scripts/dev.py test", 2)
    return Path(os.environ["COMFYUI_PATH"]) / "comfy" / "sd1_tokenizer"
