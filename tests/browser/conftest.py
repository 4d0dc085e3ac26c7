"""The host's real web page in a headless browser, with the pack mounted in a real server."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import foreign_pack
import pytest
from client import Client
from editor import WAYS, Frontend, opened
from playwright.sync_api import sync_playwright

from devtools.browser import need_browser
from devtools.server import running_host

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Client]:
    """A real ComfyUI server on the CPU with the pack and a foreign one; a Client for it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.exit("COMFYUI_PATH is not set: use python scripts/dev.py test --tier browser", 2)
    front_end = os.environ.get("FLOWSEARCH_FRONT_END")
    options = ["--front-end-root", front_end] if front_end else []
    comfyui = Path(os.environ["COMFYUI_PATH"])
    base = tmp_path_factory.mktemp("server")
    shutil.copytree(Path(foreign_pack.__file__).parent, base / "custom_nodes" / "foreign_pack")
    with running_host(Path(sys.executable), comfyui, base=base, options=options) as running:
        yield Client(running)


@pytest.fixture(scope="session")
def chromium():
    """A headless browser."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = [*FLAGS, *(["--no-sandbox"] if root else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need_browser(), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def new_page(server, chromium) -> Iterator[Frontend]:
    """The editor as a new user opens it, with Nodes 2.0."""
    with opened(server, chromium, "vue") as front:
        yield front


@pytest.fixture(scope="session")
def kept_page(server, chromium) -> Iterator[Frontend]:
    """A page for many tests: the editor takes five seconds to start."""
    with opened(server, chromium, WAYS[0]) as front:
        yield front


@pytest.fixture
def editor(kept_page) -> Frontend:
    """The editor in which other workflows were open before, as on a person's day."""
    kept_page.problems.clear()
    return kept_page


@pytest.fixture(params=WAYS)
def drawn(request, editor) -> Frontend:
    """That editor, in each way of drawing nodes."""
    editor.draw(request.param)
    return editor
