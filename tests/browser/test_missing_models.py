"""The host's own page offers the files that the rewards of a workflow lack."""

import json
from pathlib import Path

from playwright.sync_api import expect

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"


def test_the_page_offers_the_missing_files_of_rewards(frontend):
    workflow = json.loads((EXAMPLES / "10_preference.json").read_text(encoding="utf-8"))
    frontend.load(workflow)
    page = frontend.page
    page.get_by_text("View details").click()
    expect(page.get_by_text("Missing Models", exact=True)).to_be_visible()
    panel = page.get_by_text("Missing Models", exact=True).locator("xpath=ancestor::*[5]")
    for file in ("PickScore_v1.safetensors", "HPS_v2.1_compressed.pt"):
        expect(panel.get_by_text(file, exact=True).first).to_be_visible()
    assert panel.get_by_text("flowsearch_rewards").count() == 2
    assert panel.get_by_role("button", name="Download", exact=True).count() == 2
