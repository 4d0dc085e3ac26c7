"""The files that are offered are what they are said to be: layouts give the published sizes."""

from pathlib import Path

import clip_layouts
import pytest
from examples import editor_form

from flowsearch.rewards.embedding.clip_pairs import PAIRS, advice

ROOT = Path(__file__).resolve().parents[3]
VIT_L, VIT_G, VIT_H = PAIRS
LAYOUTS = [
    (VIT_L.text, clip_layouts.text(768), "F16"),
    (VIT_L.vision, clip_layouts.vision(768), "F16"),
    (
        VIT_L.same[0],
        clip_layouts.text(768, numbered=True)
        | clip_layouts.vision(768, numbered=True)
        | {"logit_scale": ()},
        "F32",
    ),
    (VIT_G.text, clip_layouts.text(1280), "F16"),
    (VIT_G.vision, clip_layouts.vision(1280, numbered=True), "F16"),
    (VIT_H.vision, clip_layouts.vision(1024), "F16"),
    (VIT_H.same[0], clip_layouts.vision(1024, numbered=True), "F32"),
]


@pytest.mark.parametrize(("file", "shapes", "kind"), LAYOUTS, ids=lambda value: str(value)[:40])
def test_the_layout_has_the_published_size(file, shapes, kind):
    """To the byte, where the published size is known so."""
    about = file.size % 1_000_000 == 0
    assert clip_layouts.size(shapes, kind) == pytest.approx(file.size, abs=1e6 if about else 0)


def test_the_files_that_are_refused_have_no_room_for_a_projection():
    """clip_l.safetensors of image models, and what diffusers has of SD 2."""
    assert clip_layouts.size(clip_layouts.text(768, projected=False), "F16") == 246_144_152
    half = clip_layouts.text(1024, layers=23, projected=False, numbered=True)
    assert clip_layouts.size(half, "F32") == 1_361_597_016


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.model)
def test_the_advice_names_file_folder_and_size(pair):
    said = advice(pair.width)
    for file in (pair.text, pair.vision):
        assert f"{file.name} in models/{file.folder}" in said
        assert f"{file.size / 1e6:,.0f} MB" in said
        assert file.url in said
    assert not any(other.model in said for other in PAIRS if other is not pair)


def test_the_lightest_comes_first():
    sizes = [pair.text.size + pair.vision.size for pair in PAIRS]
    assert sizes == sorted(sizes)
    assert advice().startswith(PAIRS[0].model)
    assert all(pair.model in advice(31) for pair in PAIRS)


@pytest.mark.parametrize("page", ["docs/REWARDS.md", "web/docs/FlowSearchClipScore.md"])
def test_the_pages_name_the_same_files_and_sizes(page):
    written = (ROOT / page).read_text(encoding="utf-8")
    for pair in PAIRS:
        for file in (pair.text, pair.vision, *pair.same):
            exact = f"{file.size:,}"
            about = f"about {file.size / 1e6:,.0f} MB"
            assert file.name in written
            assert (about if file.size % 1_000_000 == 0 else exact) in written
            assert file.folder in written


def test_the_example_offers_the_lightest_pair():
    """In `models` of its nodes, by which the host's page offers what is missing."""
    workflow = editor_form("10 Reward CLIP Score")
    offered = [m for node in workflow["nodes"] for m in node["properties"].get("models", [])]
    wanted = [
        {"name": file.name, "url": file.url, "directory": file.folder}
        for file in (VIT_L.text, VIT_L.vision)
    ]
    assert sorted(offered, key=str) == sorted(wanted, key=str)
    chosen = {w for node in workflow["nodes"] for w in node["widgets_values"] if isinstance(w, str)}
    assert {file["name"] for file in wanted} <= chosen
