"""Words from elsewhere are words in the page; the oldest puts progress text into innerHTML."""

import json
import os
import shutil
import sys
from pathlib import Path

import foreign_pack
import pytest
from client import Client
from editor import opened

from devtools.server import running_host

CASES = json.loads(
    (Path(__file__).parents[1] / "data" / "hostile_words.json").read_text(encoding="utf-8")
)["cases"]
MARKUP = [case for case in CASES if case.startswith("<")]
FOUND = """() => ({
    title: document.title,
    elements: document.querySelectorAll('img[src=x], a[href^=javascript]').length,
    bold: [...document.querySelectorAll('b')].filter(it => it.textContent === 'bold').length,
    text: document.body.innerText.replaceAll('\\u200b', ''),
})"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory, chromium):
    """The oldest page of the hosts that we support, and a pack with a reward of any name."""
    if os.environ.get("FLOWSEARCH_FRONT_END"):
        pytest.skip("the oldest page is tried once, in the tier browser")
    base = tmp_path_factory.mktemp("oldest")
    pack = Path(foreign_pack.__file__).parent
    shutil.copytree(pack, base / "custom_nodes" / "foreign_pack")
    comfyui, page = Path(os.environ["COMFYUI_PATH"]), os.environ["FLOWSEARCH_OLDEST_FRONT_END"]
    options = ["--front-end-root", page]
    with (
        running_host(Path(sys.executable), comfyui, base=base, options=options) as running,
        opened(Client(running), chromium, "canvas") as shown,
    ):
        yield shown.page


def test_hostile_words_do_not_run_in_the_oldest_page(oldest):
    size = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    scores = {
        "images": ["1", 0], "reward": ["2", 0], "keep": 0, "threshold": "none",
        "order": "as_given", "draw": False,
    }  # fmt: skip
    assert len(MARKUP) == 3
    for case in MARKUP:
        prompt = {
            "1": {"class_type": "EmptyImage", "inputs": size},
            "2": {"class_type": "ForeignReward", "inputs": {"name": case}},
            "3": {"class_type": "FlowSearchScoreImages", "inputs": scores},
        }
        oldest.evaluate("prompt => window.app.loadApiJson(prompt, 'words')", prompt)
        oldest.evaluate("() => window.app.queuePrompt(0)")
        said = f"{case} of 1 picture, 1 kept"
        has = "said => document.body.innerText.replaceAll('\\u200b', '').includes(said)"
        oldest.wait_for_function(has, arg=said, timeout=60_000)
        found = oldest.evaluate(FOUND)
        assert "ran" not in found["title"].split()
        assert (found["elements"], found["bold"]) == (0, 0)
