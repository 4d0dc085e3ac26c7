"""The host's page in a browser: open the editor, load, draw, run and read workflows there."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from client import Client
from playwright.sync_api import ConsoleMessage, Page, Route

SETTINGS = {"Comfy.TutorialCompleted": True}
# Files of a user that a new one has not; a word of the default page's own start; weights of the
# graph that the host opens first, which it looks for outside, in vain; newer pages also report to
# their makers, in vain.
OF_THE_HOST = (
    "/user.css",
    "/api/userdata",
    "ComfyApp graph accessed before initialization",
    "/Comfy-Org/z_image_turbo/",
    ".ingest.us.sentry.io/",
)
# The page is there long before the graph that it opens by itself is, and an idle network tells
# nothing of that: older pages show an open workflow last, newer ones then take their spinner away.
STARTED = """() => {
    const {workflow, spinner} = window.app?.extensionManager ?? {};
    const tracker = workflow?.activeWorkflow?.changeTracker;
    return tracker && !tracker.constructor.isLoadingGraph && spinner === false;
}"""
# Whatever is to be drawn is drawn by the second of two frames.
DRAWN = "() => new Promise(end => requestAnimationFrame(() => requestAnimationFrame(end)))"
WAYS = ["canvas", "vue"]
CHOOSE = "vue => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)"
SLACK = 4.0  # pixels that rounding and borders may share
STILL = 4  # times two frames in which nothing moves

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
PICTURES = """vue => window.app.rootGraph.nodes.every(node => {
    const images = window.app.nodeOutputs[node.id]?.images?.length;
    const shown = vue
        ? [...document.querySelectorAll(`[data-node-id="${node.id}"] img`)]
        : (node.imgs ?? []);
    return (!images || shown.length) && shown.every(it => it.complete);
})"""
SETTLE = f"""async ([vue, still]) => {{
    const [drawn, rectangles, seeAll, pictures] = [{DRAWN}, {RECTANGLES}, {SEE_ALL}, {PICTURES}];
    let before = "", same = 0;
    for (let left = 400; left; left--) {{
        seeAll();
        await drawn();
        const now = rectangles(vue).map(([node, it]) => [node, it && it.map(Math.round)]);
        const text = JSON.stringify(now);
        same = text === before && now.every(([, it]) => it) && pictures(vue) ? same + 1 : 0;
        if (same === still) return;
        before = text;
    }}
    throw new Error("the page does not come to rest: " + before);
}}"""
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
    """A page, and everything it complained about since its test began."""

    page: Page
    how: str
    problems: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=lambda: [*OF_THE_HOST])

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        told = f"console: {message.text} {message.location}"
        if message.type == "error" and not any(place in told for place in self.offered):
            self.problems.append(told)

    def start(self, url: str) -> None:
        """Open the editor, and wait until it has opened the graph that it begins with."""
        self.page.goto(url)
        self.page.wait_for_function(STARTED, timeout=120_000)
        self.settle()

    def draw_frames(self) -> None:
        """Wait until everything done so far is drawn."""
        self.page.evaluate(DRAWN)

    def load(self, workflow: dict, how: str | None = None) -> None:
        """Open a workflow in the editor's own format, as dropping its file on the page does.

        The page looks at the addresses of the models that a workflow names; that there is no
        network is no problem of ours.
        """
        nodes = workflow["nodes"]
        models = (m for node in nodes for m in node["properties"].get("models", []))
        self.offered += [model["url"] for model in models]
        self._choose(how or self.how)
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.settle()

    def draw(self, how: str) -> None:
        """Draw nodes in one of the host's two ways, as the setting of that name does."""
        if how != self.how:
            self._choose(how)
            self.settle()

    def _choose(self, how: str) -> None:
        if how != self.how:
            self.page.evaluate(CHOOSE, how == "vue")
            self.how = how

    def run(self) -> None:
        """Press Run, and wait for the end of that."""
        how, detail = self.page.evaluate(RUN)
        assert how == "execution_success", detail
        self.settle()

    def rectangles(self) -> dict[str, list[float] | None]:
        """Node id to x, y, width and height as drawn; None while it is not."""
        return dict(self.page.evaluate(RECTANGLES, self.how == "vue"))

    def settle(self) -> None:
        """Wait until nodes and pictures are all drawn and no node changes its size any more."""
        self.page.evaluate(SETTLE, [self.how == "vue", STILL])

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


def overlaps(rectangles: dict[str, list[float]]) -> list[tuple]:
    """Pairs of nodes that share more than a border, and how much of both directions."""
    found = []
    for (a, one), (b, other) in itertools.combinations(rectangles.items(), 2):
        shared = [
            min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])
            for i in (0, 1)
        ]
        if min(shared) > SLACK:
            found.append((a, b, *(round(x) for x in shared)))
    return found


@contextmanager
def opened(server: Client, chromium, how: str, files: Path | None = None) -> Iterator[Frontend]:
    """Open the editor, drawing nodes in one of the host's two ways; of another page's files."""
    server.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": how == "vue"})
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    if files is not None:
        context.route("**/*", lambda route: _serve(route, files))
        # A page that no server sent may not talk to this machine unasked.
        context.grant_permissions(["local-network-access"])
    front = Frontend(context.new_page(), how)
    front.start(server.url)
    yield front
    context.close()


def _serve(route: Route, files: Path) -> None:
    path = unquote(urlsplit(route.request.url).path).lstrip("/") or "index.html"
    if (files / path).is_file():
        route.fulfill(path=files / path)
    else:
        route.continue_()
