"""The host's real web page in a headless browser, with the pack mounted in a real server."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

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
def server() -> Iterator[Client]:
    """A real ComfyUI server on the CPU with the pack installed; a Client for it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.exit("COMFYUI_PATH is not set: use python scripts/dev.py test --tier browser", 2)
    front_end = os.environ.get("FLOWSEARCH_FRONT_END")
    options = ["--front-end-root", front_end] if front_end else []
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with running_host(Path(sys.executable), comfyui, options=options) as running:
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


@pytest.fixture(params=WAYS)
def frontend(request, server, chromium) -> Iterator[Frontend]:
    """The editor in a new page, ready, once with each way of drawing nodes."""
    with opened(server, chromium, request.param) as front:
        yield front


@pytest.fixture
def new_page(server, chromium) -> Iterator[Frontend]:
    """The editor as a new user opens it, with Nodes 2.0."""
    with opened(server, chromium, "vue") as front:
        yield front


@pytest.fixture(scope="session", params=WAYS)
def kept_page(request, server, chromium) -> Iterator[Frontend]:
    """A page for many tests: the editor takes five seconds to start."""
    with opened(server, chromium, request.param) as front:
        yield front


@pytest.fixture(scope="session")
def kept_switching_page(server, chromium) -> Iterator[Frontend]:
    """A page for many tests that change the way of drawing."""
    with opened(server, chromium, WAYS[0]) as front:
        yield front


@pytest.fixture
def one_page(kept_switching_page) -> Frontend:
    """The editor in which other workflows were open before, for tests of both ways of drawing."""
    kept_switching_page.problems.clear()
    return kept_switching_page


@pytest.fixture
def editor(kept_page) -> Frontend:
    """The editor in which other workflows were open before, as on a person's day."""
    kept_page.problems.clear()
    return kept_page
