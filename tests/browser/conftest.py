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
# machine it complains of that after it was ready. Newer ones also report to their makers, in vain.
OF_THE_HOST = ("/Comfy-Org/z_image_turbo/", ".ingest.us.sentry.io/")
READY = "() => window.app?.vueAppReady && window.app.rootGraph !== undefined"
WAYS = ["canvas", "vue"]

# Of each node: x, y, width and height on the canvas, its title among them.
RECTANGLES = """vue => {
    const {ds, canvas} = window.app.canvas, origin = canvas.getBoundingClientRect();
    const drawn = node => {
        if (!vue) return [...node.boundingRect].slice(0, 4);
        const it = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
        return it && [
            (it.x - origin.x) / ds.scale - ds.offset[0],
            (it.y - origin.y) / ds.scale - ds.offset[1],
            it.width / ds.scale,
            it.height / ds.scale,
        ];
    };
    return window.app.rootGraph.nodes.map(node => [String(node.id), drawn(node)]);
}"""
SEE_ALL = """() => {
    const {ds, canvas} = window.app.canvas;
    const all = window.app.rootGraph.nodes.map(it => it.boundingRect);
    if (!all.length) return;
    const least = i => Math.min(...all.map(it => it[i]));
    const most = i => Math.max(...all.map(it => it[i] + it[i + 2]));
    const [x, y] = [least(0), least(1)];
    const room = [canvas.clientWidth - 140, canvas.clientHeight - 160];
    ds.scale = Math.min(1, room[0] / (most(0) - x), room[1] / (most(1) - y));
    [ds.offset[0], ds.offset[1]] = [80 / ds.scale - x, 110 / ds.scale - y];
    window.app.canvas.setDirty(true, true);
}"""
RUN = """() => new Promise((resolve, reject) => {
    const {api} = window.app;
    const end = event => resolve([event.type, event.detail]);
    for (const name of ["execution_success", "execution_error", "execution_interrupted"])
        api.addEventListener(name, end, {once: true});
    setTimeout(() => reject(new Error("the workflow has not ended")), 300_000);
    window.app.queuePrompt(0).then(queued => queued || reject(new Error("it was not queued")));
})"""


@dataclass
class Frontend:
    """The page of one test, and everything it complained about since it was ready."""

    page: Page
    how: str
    problems: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=lambda: [*OF_THE_HOST])

    def load(self, workflow: dict) -> None:
        """Open a workflow in the editor's own format, as dropping its file on the page does.

        The page looks at the addresses of the models that a workflow names; that there is no
        network is no problem of ours.
        """
        nodes = workflow["nodes"]
        models = (m for node in nodes for m in node["properties"].get("models", []))
        self.offered += [model["url"] for model in models]
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.settle()

    def draw(self, how: str) -> None:
        """Draw nodes in the other of the host's two ways, as the setting of that name does."""
        if how != self.how:
            setting = (
                "value => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', value)"
            )
            self.page.evaluate(setting, how == "vue")
            self.how = how
            self.settle()

    def run(self) -> None:
        """Press Run, and wait for the end of that."""
        how, detail = self.page.evaluate(RUN)
        assert how == "execution_success", detail
        self.settle()

    def rectangles(self) -> dict[str, list[float] | None]:
        """Node id to x, y, width and height as drawn; None while it is not."""
        return dict(self.page.evaluate(RECTANGLES, self.how == "vue"))

    def settle(self) -> None:
        """Wait until all nodes are drawn and none changes its size any more."""
        before: list[object] = []
        for _ in range(200):
            self.page.evaluate(SEE_ALL)
            self.page.wait_for_timeout(50)
            now = self.rectangles()
            rounded = {key: it and [round(x) for x in it] for key, it in now.items()}
            before = [*before[-2:], rounded]
            if all(now.values()) and before == [rounded] * 3:
                return
        pytest.fail(f"the page does not come to rest: {before[-2:]}")

    def api(self) -> dict:
        """What the server gets by Run: {node id: {inputs, class_type, _meta: {title}}}.

        Newer front ends wrap lists and curves as {"__type__": ..., "__value__": ...}; the server
        takes that off first.
        """
        output = self.page.evaluate("async () => (await window.app.graphToPrompt()).output")
        for body in output.values():
            for name, value in body["inputs"].items():
                if isinstance(value, dict) and "__value__" in value:
                    body["inputs"][name] = value["__value__"]
        return output

    def workflow(self) -> dict:
        """The open workflow in the editor's own format."""
        return self.page.evaluate("() => window.app.rootGraph.serialize()")

    def known_types(self) -> set[str]:
        """Node types that the page can draw."""
        return set(self.page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))


@pytest.fixture(scope="session")
def server() -> Iterator[Client]:
    """A real ComfyUI server on the CPU with the pack installed; a Client for it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.exit("COMFYUI_PATH is not set: use python scripts/dev.py test --tier browser", 2)
    front_end = os.environ.get("FLOWSEARCH_FRONT_END")
    options = ["--front-end-root", front_end] if front_end else []
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with running_host(Path(sys.executable), comfyui, options=options) as running:
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
    front = Frontend(context.new_page(), how)
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
