"""Words from elsewhere are words in the page; the oldest puts progress text into innerHTML."""

import json
import os
from pathlib import Path

import pytest
from editor import opened

from devtools.pins import OLDEST_FRONT_END

CASES = json.loads(
    (Path(__file__).parents[1] / "data" / "hostile_words.json").read_text(encoding="utf-8")
)["cases"]
OLDEST = OLDEST_FRONT_END.partition("==")[2]
MARKUP = [case for case in CASES if case.startswith("<")]
FOUND = """() => ({
    title: document.title,
    elements: document.querySelectorAll('img[src=x], a[href^=javascript]').length,
    bold: [...document.querySelectorAll('b')].filter(it => it.textContent === 'bold').length,
    text: document.body.innerText.replaceAll('\\u200b', ''),
})"""


@pytest.fixture
def oldest(server, chromium):
    """The oldest page of the hosts that we support."""
    files = Path(os.environ["FLOWSEARCH_OLDEST_FRONT_END"])
    with opened(server, chromium, "canvas", files) as shown:
        assert shown.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__") == OLDEST
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
