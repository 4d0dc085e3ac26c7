"""What a new user does first: open a template, ask for something else, run, cancel, go on, keep."""

import base64
import json
import re

from PIL import Image
from playwright.sync_api import expect

NAME = "01 Reward Search, start here"
PROMPT, SEARCH, SAVE = "11", "6", "7"  # nodes of that
WORDS = "two green triangles and one blue circle"
HARD = "five yellow circles, five purple squares and four red triangles"
SECONDS = 240_000
OUTPUT = "node => window.app.nodeOutputs[node]"
TOLD = "([node, words]) => window.app.nodeOutputs[node]?.text?.[0].includes(words)"
VALUE = """([node, name, value]) =>
    window.app.rootGraph.getNodeById(node)?.widgets.find(it => it.name === name)?.value === value"""
PROGRESS = """evaluations => new Promise((resolve, reject) => {
    const {api} = window.app;
    setTimeout(() => reject(new Error("no such progress")), 120_000);
    const look = ({detail}) => {
        if (Object.values(detail.nodes).some(it => it.value >= evaluations && it.value < it.max)) {
            api.removeEventListener("progress_state", look);
            resolve();
        }
    };
    api.addEventListener("progress_state", look);
})"""
DROP = """([name, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), it => it.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, {type: "image/png"}));
    const about = {bubbles: true, cancelable: true, dataTransfer: data, clientX: 30, clientY: 800};
    document.getElementById("graph-canvas").dispatchEvent(new DragEvent("drop", about));
}"""


class Person:
    """Looks at a page, types and clicks."""

    def __init__(self, page):
        self.page = page

    def node(self, node):
        return self.page.locator(f'[data-node-id="{node}"]')

    def open_template(self, name):
        self.page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        entry = self.page.get_by_role("button", name="flowsearch", exact=True)
        group = self.page.get_by_text("Extensions", exact=True)
        group.wait_for()
        if not entry.is_visible():  # newer pages open it at a click
            group.click()
        entry.click()
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        expect(card.locator("img").first).to_be_visible(timeout=SECONDS)
        card.click()
        self.node(SEARCH).wait_for()

    def ask_for(self, words, seed, evaluations):
        self.node(PROMPT).locator("textarea").fill(words)
        for name, value in (("seed", seed), ("evaluations", evaluations)):
            field = self.node(SEARCH).get_by_label(name, exact=True).locator("input").first
            field.fill(str(value))
            field.press("Enter")

    def run(self):
        self.page.get_by_test_id("queue-button").click()

    def cancel(self):
        # A click by the mouse waits for what lies over the button, while the run goes on.
        button = self.page.get_by_role("button", name="Cancel current run").first
        button.dispatch_event("click")

    def reads(self, words):
        """Wait for words on the search node; returns all that it says."""
        self.page.wait_for_function(TOLD, arg=[SEARCH, words], timeout=SECONDS)
        return self.page.evaluate(OUTPUT, SEARCH)["text"][0]


def test_the_first_hour(new_page, server):
    page, person = new_page.page, Person(new_page.page)
    person.open_template(NAME)

    # a run: the score is on the node and stays there
    person.ask_for(WORDS, 5, 60)
    person.run()
    first = re.match(r"score (\S+), plain score (\S+); (\d+) of 60", person.reads("score "))
    score, plain, used = first.groups()
    assert float(score) >= float(plain)
    expect(person.node(SEARCH).locator("img").last).to_be_visible()
    page.wait_for_function(OUTPUT, arg=SAVE, timeout=SECONDS)
    saved = page.evaluate(OUTPUT, SAVE)["images"][0]

    # something hard, cancelled: the node says where it stands and where the best picture lies
    person.ask_for(HARD, 6, 200)
    person.run()
    page.evaluate(PROGRESS, 25)
    person.cancel()
    told = person.reads("cancelled;")
    for words in ("of 200 evaluations", "temp folder", "queue the same again"):
        assert words in told

    # the same again goes on from there
    person.run()
    assert person.reads("went on from the checkpoint").startswith("score ")

    # the first picture, dropped on the page, brings its workflow back, and has its score
    file = server.server.base / "output" / saved["subfolder"] / saved["filename"]
    with Image.open(file) as picture:
        (found,) = json.loads(picture.info["flowsearch"])[SEARCH]["pictures"]
    assert (f"{found['score']:.4g}", found["evaluations"]) == (score, int(used))
    page.evaluate(DROP, [file.name, base64.b64encode(file.read_bytes()).decode()])
    page.wait_for_function(VALUE, arg=[PROMPT, "value", WORDS])
    page.wait_for_function(VALUE, arg=[SEARCH, "seed", 5])
    assert new_page.problems == []
