"""The host's own page offers the files that the rewards of a workflow lack."""

from examples import editor_form
from playwright.sync_api import expect


def test_the_page_offers_the_missing_files_of_rewards(new_page):
    new_page.load(editor_form("10 Reward Preference"))
    page = new_page.page
    page.get_by_text("View details").click()
    expect(page.get_by_text("Missing Models", exact=True)).to_be_visible()
    for file in ("PickScore_v1.safetensors", "HPS_v2.1_compressed.pt"):
        expect(page.get_by_text(file, exact=True).last).to_be_visible()
    assert page.get_by_text("flowsearch_rewards", exact=True).count() == 2
    expect(page.get_by_text("Download", exact=True)).to_have_count(2)
