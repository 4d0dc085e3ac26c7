"""The host's real web page in a headless browser, with the pack mounted in a real server."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from client import Client
from playwright.sync_api import Page, sync_playwright

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
SETTINGS = {"Comfy.TutorialCompleted": True}
# A new page opens the host's own graph, whose weights it looks for outside, in vain; on a busy
# machine it complains of that after it was ready.
OF_THE_HOSTS_GRAPH = "/Comfy-Org/z_image_turbo/"
READY = "() => window.app?.vueAppReady && window.app.rootGraph !== undefined"


@dataclass
class Frontend:
    """The page of one test, and everything it complained about since it was ready."""

    page: Page
    problems: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=lambda: [OF_THE_HOSTS_GRAPH])

    def load(self, workflow: dict) -> None:
        """Open a workflow in the editor's own format, as dropping its file on the page does.

        The page looks at the addresses of the models that a workflow names; that there is no
        network is no problem of ours.
        """
        nodes = workflow["nodes"]
        models = (m for node in nodes for m in node["properties"].get("models", []))
        self.offered += [model["url"] for model in models]
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.wait_for_timeout(500)

    def api(self) -> dict:
        """What Run would send to the server: {node id: {inputs, class_type}}, titles left out."""
        output = self.page.evaluate("async () => (await window.app.graphToPrompt()).output")
        return {
            node: {key: value for key, value in body.items() if key != "_meta"}
            for node, body in output.items()
        }

    def workflow(self) -> dict:
        """The open workflow in the editor's own format."""
        return self.page.evaluate("() => window.app.rootGraph.serialize()")

    def known_types(self) -> set[str]:
        """Node types that the page can draw."""
        return set(self.page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))


@pytest.fixture(scope="session")
def server() -> Iterator[Client]:
    """A real ComfyUI server on the CPU with the pack mounted; a Client for it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.exit("COMFYUI_PATH is not set: use python scripts/dev.py test --tier browser", 2)
    with running_host(Path(sys.executable), Path(os.environ["COMFYUI_PATH"])) as running:
        client = Client(running)
        client.post("/settings", SETTINGS)
        yield client


@pytest.fixture(scope="session")
def chromium():
    """A headless browser."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = [*FLAGS, *(["--no-sandbox"] if root else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need_browser(), args=flags)
        yield browser
        browser.close()


@contextmanager
def opened(server: Client, chromium, how: str) -> Iterator[Frontend]:
    """Open the editor, drawing nodes in one of the host's two ways."""
    server.post("/settings", {"Comfy.VueNodes.Enabled": how == "vue"})
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    front = Frontend(context.new_page())
    front.page.on("pageerror", lambda error: front.problems.append(f"page error: {error}"))
    front.page.goto(server.url)
    front.page.wait_for_function(READY, timeout=120_000)
    front.page.wait_for_load_state("networkidle")
    # The host's own page logs 404s for files of a new user while it starts; ours may not fail.
    front.page.on(
        "console",
        lambda message: (
            front.problems.append(f"console: {message.text} {message.location}")
            if message.type == "error" and not any(it in message.text for it in front.offered)
            else None
        ),
    )
    yield front
    context.close()


WAYS = ["canvas", "vue"]


@pytest.fixture(params=WAYS)
def frontend(request, server, chromium) -> Iterator[Frontend]:
    """The editor in a new page, ready, once with each way of drawing nodes."""
    with opened(server, chromium, request.param) as front:
        yield front


@pytest.fixture(scope="session", params=WAYS)
def kept_page(request, server, chromium) -> Iterator[Frontend]:
    """A page for many tests: the editor takes five seconds to start."""
    with opened(server, chromium, request.param) as front:
        yield front


@pytest.fixture
def editor(kept_page) -> Frontend:
    """The editor in which other workflows were open before, as on a person's day."""
    kept_page.problems.clear()
    return kept_page
