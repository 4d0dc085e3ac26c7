"""Text in Image, Image Statistic, Layout and Judge in the real host."""

import importlib
import json
import sys
import threading
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from judge_server import KEY, by_hash, said, serving

from flowsearch.nodes.host.rewards import judges
from flowsearch.nodes.rewards.combination import CombineRewards
from flowsearch.nodes.rewards.judge import JudgeReward
from flowsearch.nodes.rewards.layout import LayoutReward
from flowsearch.nodes.rewards.statistic import ImageStatisticReward
from flowsearch.nodes.rewards.text import TextInImageReward
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.pixels.image_statistic import STATISTICS
from flowsearch.rewards.reading import text_in_image


def made(node, **inputs):
    """The reward that a node makes."""
    return node.execute(**inputs).result[0]


def configure(base, text):
    file = base / "__flowsearch" / "judges.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user folder of the host's without judges."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    return tmp_path


def entry(url, **fields):
    return json.dumps({"mine": {"url": url, "model": "m", **fields}})


# Layout


def test_a_layout_of_boxes_and_one_of_their_picture_are_the_same():
    text = "background white\nred 0.25 0.25 0.75 0.75"
    picture = torch.ones(1, 16, 16, 3)
    picture[:, 4:12, 4:12] = torch.tensor([1.0, 0.0, 0.0])
    boxes = made(LayoutReward, layout={"layout": "boxes", "boxes": text})
    drawn = made(LayoutReward, layout={"layout": "picture", "drawing": picture})
    images = torch.rand(2, 32, 24, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(boxes.score(images), drawn.score(images), atol=1e-5)
    assert boxes.score(picture).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("layout", ["boxes", "picture"])
def test_a_layout_counts_where_the_mask_is_and_can_be_differentiated(layout):
    mask = torch.zeros(1, 20, 20)
    mask[:, :, :10] = 1.0
    chosen = {"layout": layout, "boxes": "black 0 0 1 1", "drawing": torch.zeros(1, 8, 8, 3)}
    with torch.inference_mode():  # as the host runs nodes
        reward = made(LayoutReward, layout=chosen, grid=4, colour=0.3, mask=mask)
        found = gradient_of(reward, torch.full((1, 32, 32, 3), 0.5))
    assert found.gradient[:, :, :15].all()
    assert not found.gradient[:, :, 18:].any()  # a mask's edge is stretched, and softened by it


def test_a_smooth_minimum_has_the_softness_of_its_input():
    layouts = ("red 0 0 1 1", "blue 0 0 1 1")
    rewards = {
        f"reward{i}": made(LayoutReward, layout={"layout": "boxes", "boxes": text})
        for i, text in enumerate(layouts)
    }
    images = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    values = torch.stack([reward.score(images) for reward in rewards.values()])
    for softness, wanted in ((0.001, values.amin(dim=0)), (1000.0, values.mean(dim=0))):
        rule = {"rule": "smooth_minimum", "normalisation": "none", "softness": softness}
        combined = made(CombineRewards, rewards=rewards, rule=rule)
        assert torch.allclose(combined.score(images), wanted, atol=2e-3)


# Image Statistic


@pytest.mark.parametrize("statistic", STATISTICS)
def test_each_statistic_is_made_by_the_node(statistic):
    chosen = {"statistic": statistic, "colours": "#000 #fff"}
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    high = made(ImageStatisticReward, statistic=chosen, direction={"direction": "higher"})
    low = made(ImageStatisticReward, statistic=chosen, direction={"direction": "lower"})
    near = {"direction": "target", "value": float(high.score(images)[0])}
    target = made(ImageStatisticReward, statistic=chosen, direction=near)
    assert torch.equal(high.score(images), -low.score(images))
    assert target.score(images)[0].item() == pytest.approx(0.0, abs=1e-5)
    assert target.score(images)[1].item() < 0.0


def test_a_reference_picture_is_the_palette():
    red = torch.zeros(2, 8, 8, 3)
    red[0, ..., 0] = 1.0
    chosen = {"statistic": "palette", "colours": "#00f", "reference": red, "count": 4}
    reward = made(ImageStatisticReward, statistic=chosen, direction={"direction": "higher"})
    assert reward.score(red)[0].item() == pytest.approx(0.0, abs=1e-3)
    assert reward.score(red)[1].item() < -50.0
    with pytest.raises(ValueError, match="'blue' in the palette"):
        made(
            ImageStatisticReward,
            statistic={"statistic": "palette", "colours": "blue"},
            direction={"direction": "higher"},
        )


# Text in Image


def test_an_empty_text_and_a_missing_package_are_explained_before_anything_runs(monkeypatch):
    assert TextInImageReward.validate_inputs(text=None) is (True)
    assert "Write what" in TextInImageReward.validate_inputs(text=" \n")
    monkeypatch.setattr("flowsearch.nodes.rewards.text.lacking", lambda: "pip install it")
    assert TextInImageReward.validate_inputs(text="a") == "pip install it"


def test_the_nodes_settings_arrive_and_a_cancel_is_obeyed():
    settings = {"ignore": "nothing", "match_case": True, "extra": 0.25, "min_confidence": 0.75}
    reward = made(TextInImageReward, text="Open", **settings)
    assert {name: getattr(reward, name) for name in settings} == settings
    read = []

    class Reader:
        characters = frozenset()

        def __call__(self, picture):
            read.append(1)
            comfy.model_management.interrupt_current_processing()
            return []

    object.__setattr__(reward, "reader", Reader)
    with pytest.raises(InterruptProcessingException):
        reward.score(torch.zeros(3, 8, 8, 3))
    assert len(read) == 1


def test_one_reader_serves_all_nodes():
    if missing := text_in_image.lacking():
        pytest.skip(missing)
    assert made(TextInImageReward, text="a").reader() is made(TextInImageReward, text="b").reader()


# Judge


def test_without_a_file_nothing_is_there_and_the_node_says_how(user):
    assert judges.names() == []
    said_ = JudgeReward.validate_inputs(judge="ollama")
    assert "There is none yet" in said_
    assert str(user / "__flowsearch" / "judges.yaml") in said_
    assert "url: http://127.0.0.1:11434/v1" in said_
    assert JudgeReward.validate_inputs(judge=None) is (True)
    with pytest.raises(ValueError, match="'ollama' is not in"):
        JudgeReward.execute("ollama", "a cat")


def test_a_wrong_file_is_explained_and_the_list_is_empty(user):
    configure(user, entry("http://127.0.0.1/v1", api_key="x"))
    assert judges.names() == []
    assert "'api_key', which is unknown" in JudgeReward.validate_inputs(judge="mine")


def test_a_missing_key_is_told_when_the_workflow_is_queued(user, monkeypatch):
    configure(user, entry("http://127.0.0.1/v1", key_env="FLOWSEARCH_TEST_KEY"))
    monkeypatch.delenv("FLOWSEARCH_TEST_KEY", raising=False)
    assert "FLOWSEARCH_TEST_KEY, which is not set" in JudgeReward.validate_inputs(judge="mine")
    monkeypatch.setenv("FLOWSEARCH_TEST_KEY", KEY)
    assert JudgeReward.validate_inputs(judge="mine") is (True)
    assert KEY not in JudgeReward.fingerprint_inputs(judge="mine", prompt="", instruction="")


def test_the_node_asks_the_judge_and_shares_its_client(user):
    with serving(by_hash) as server:
        configure(user, entry(server.url, price_input=3.0))
        assert judges.names() == ["mine"]
        before = JudgeReward.fingerprint_inputs(judge="mine")
        reward = made(JudgeReward, judge="mine", prompt="a cat")
        assert server.count == 0, "something was sent before there was a picture"
        found = reward.assess(torch.rand(3, 16, 16, 3))
        assert server.count == 3
        assert found.parts[0]["cost"] > 0.0
        assert reward.spec.source == "m, the user's judge 'mine'"
        assert made(JudgeReward, judge="mine", prompt="b").client is reward.client
        configure(user, entry(server.url, price_input=4.0))
        assert JudgeReward.fingerprint_inputs(judge="mine") != before
        assert made(JudgeReward, judge="mine", prompt="b").client is not reward.client


def test_a_cancel_of_the_host_drops_an_open_request(user):
    asked, over, answered = threading.Event(), threading.Event(), []

    def slow(request, headers):
        asked.set()
        answered.append(over.wait(60.0))
        return said(1)

    def cancel():
        asked.wait(60.0)
        comfy.model_management.interrupt_current_processing()

    with serving(slow) as server:
        configure(user, entry(server.url))
        reward = made(JudgeReward, judge="mine", prompt="a cat")
        person = threading.Thread(target=cancel)
        person.start()
        with pytest.raises(InterruptProcessingException):
            reward.score(torch.zeros(1, 8, 8, 3))
        assert not answered, "the cancel waited for the judge"
        over.set()
        person.join()


def test_the_network_is_touched_by_one_file_only():
    """aiohttp, requests, urllib.request, sockets: in rewards/judge/client.py and nowhere else."""
    assert importlib.import_module("flowsearch.rewards.judge.client").aiohttp
    names = ("aiohttp", "requests", "urllib.request", "urllib3", "httpx", "socket", "http.client")
    root = folder_of_pack()
    found = {
        file.relative_to(root).as_posix()
        for top in ("rewards", "nodes", "samplers", "demo")
        for file in (root / top).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(tuple(f"{w} {n}" for w in ("import", "from") for n in names))
    }
    assert found == {"rewards/judge/client.py"}


def folder_of_pack():
    return Path(sys.modules["flowsearch"].__file__).parent


# In the server


def search(reward, **settings):
    """A small search on the embedded model by a reward's node."""
    return {
        "1": {"class_type": "FlowSearchLoadDemo", "inputs": {"checkpoint": "few_step"}},
        "2": {
            "class_type": "CLIPTextEncode",
            "inputs": {"clip": ["1", 1], "text": "two red circles"},
        },
        "3": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "4": reward,
        "5": {
            "class_type": "FlowSearchRewardSearch",
            "inputs": {
                "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0],
                "latent_image": ["3", 0], "vae": ["1", 2], "reward": ["4", 0], "seed": 5,
                "steps": 2, "cfg": 1.0, "scheduler": "simple", "denoise": 1.0,
                "evaluations": 24, "target": "never", **settings,
            },
        },
        "6": {"class_type": "FlowSearchReport", "inputs": {"report": ["5", 2]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["5", 1]}},
    }  # fmt: skip


def report_of(outputs):
    return json.loads(outputs["7"]["text"][0])


@pytest.fixture(scope="module")
def judging(server):
    """The server with a judge; (Client, the judge's server)."""
    with serving(by_hash) as judge:
        file = configure(server.server.base / "user", entry(judge.url, price_input=1.0))
        yield server, judge
        file.unlink()


JUDGE = {"class_type": "FlowSearchJudge", "inputs": {"judge": "mine", "prompt": "two red circles"}}


def test_a_search_by_a_judge_pays_for_each_picture_once(judging):
    server, judge = judging
    (names,) = server.object_info()["FlowSearchJudge"]["input"]["required"]["judge"][1:]
    assert names["options"] == ["mine"]
    report = report_of(server.run(search(JUDGE)))
    scored = [row for row in report["evaluated"] if row["scores"]]
    assert 0 < judge.count <= len(scored)
    log = server.server.log.read_text(encoding="utf-8", errors="replace")
    assert "judge 'mine': " in log
    assert judge.url not in json.dumps(report), "the report names the address"


def test_an_unknown_judge_is_refused_with_the_way_to_configure_it(judging):
    server, _ = judging
    unknown = {**JUDGE, "inputs": {**JUDGE["inputs"], "judge": "http://evil.example/v1"}}
    found = server.complaints(search(unknown))
    assert found == {("FlowSearchJudge", "judge"): "custom_validation_failed"}


def test_statistics_and_reading_search_in_the_server(judging):
    server, _ = judging
    values = {}
    for direction in ("higher", "lower"):
        chosen = {"statistic": "brightness", "direction": direction}
        reward = {"class_type": "FlowSearchImageStatistic", "inputs": chosen}
        report = report_of(server.run(search(reward)))
        values[direction] = max(
            row["scores"]["value"] for row in report["evaluated"] if row["scores"]
        )
    assert values["higher"] > -values["lower"]
    if not text_in_image.lacking():
        reward = {"class_type": "FlowSearchTextInImage", "inputs": {"text": "OO"}}
        server.run(search(reward, evaluations=4))
