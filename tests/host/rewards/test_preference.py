"""The preference node in the real host: its folder, its memory manager, its tokenizer."""

import json
from pathlib import Path

import comfy.model_management as management
import folder_paths
import pytest
import torch
from preference_weights import DATA, VOCABULARY, images, picture, seeded, small
from safetensors.torch import save_file

from flowsearch.nodes.host.page import remarks
from flowsearch.nodes.host.rewards import reward_files
from flowsearch.nodes.rewards.preference import PreferenceReward
from flowsearch.rewards.preference.clip_preference import ClipPreference, clip_ids
from flowsearch.rewards.preference.image_reward import ImageReward, bert_ids
from flowsearch.rewards.preference.kinds import network_from
from flowsearch.rewards.weights.files import FOLDER
from flowsearch.rewards.weights.holder import Local

REFERENCE = json.loads((DATA / "preference_reference.json").read_text(encoding="utf-8"))
WORDS = {
    "pick_score": "text_model.embeddings.token_embedding.weight",
    "hps_v2_1": "token_embedding.weight",
}
PROMPT = "a photo of two cats"


def weights(name):
    """A small file's tensors, with all of CLIP's words."""
    shapes = small(name)
    if name in WORDS:
        shapes[WORDS[name]] = (49408, 128)
    return seeded(shapes)


@pytest.fixture(scope="module")
def place():
    """The host's folder with a small file of each kind, saved as the published one is."""
    reward_files.register()
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    words = folder / "bert-base-uncased" / "vocab.txt"
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    save_file(weights("pick_score"), folder / "PickScore_v1.safetensors")
    torch.save({"epoch": 3, "state_dict": weights("hps_v2_1")}, folder / "HPS_v2.1_compressed.pt")
    torch.save(weights("image_reward"), folder / "ImageReward.pt")
    folder_paths.filename_list_cache.clear()
    yield folder
    for file in [*folder.glob("*.*"), words]:
        if file.is_file():
            file.unlink()
    folder_paths.filename_list_cache.clear()


NAMES = {
    "pick_score": "PickScore_v1.safetensors",
    "hps_v2_1": "HPS_v2.1_compressed.pt",
    "image_reward": "ImageReward.pt",
}


def node(name, prompt=PROMPT):
    return PreferenceReward.execute(NAMES.get(name, name), prompt).args[0]


def is_loaded(reward):
    (patcher,) = reward.get_models()
    return any(loaded.model is patcher for loaded in management.current_loaded_models)


@pytest.mark.parametrize("name", NAMES)
def test_the_node_reads_the_published_layout_and_scores(place, name):
    network = network_from(weights(name), torch.float32)
    if name == "image_reward":
        ids = bert_ids(PROMPT, place / "bert-base-uncased" / "vocab.txt", 40)
        expected = ImageReward(Local(network), ids)
    else:
        expected = ClipPreference(Local(network), clip_ids(PROMPT, reward_files.clip_vocabulary()))
    shots = images(*(picture(seed, 96, 64) for seed in range(3)))
    with torch.inference_mode():
        found = node(name)
        assert found.spec.name == name.removesuffix("_v2_1")
        assert torch.allclose(found.score(shots), expected.score(shots), atol=1e-5)
    assert PreferenceReward.validate_inputs(NAMES[name]) is True
    assert NAMES[name] in reward_files.choices()


@pytest.mark.parametrize("name", NAMES)
def test_one_network_for_two_nodes_and_freed_by_the_host(place, name):
    one, other = node(name), node(name, "a red dog")
    assert one.holders[0] is other.holders[0]
    shot = images(picture(4, 64, 64))
    values = one.score(shot), other.score(shot)
    assert abs(values[0] - values[1]).item() > 1e-4
    assert is_loaded(one)
    management.unload_all_models()
    assert not is_loaded(one)
    assert torch.equal(one.score(shot), values[0])


@pytest.mark.parametrize(("name", "longest"), [("pick_score", 77), ("image_reward", 35)])
def test_what_a_prompt_is_too_long_for_is_said_on_the_node(place, monkeypatch, name, longest):
    said = []
    monkeypatch.setattr(remarks, "say", said.append)
    node(name)
    assert not said
    node(name, " ".join([PROMPT] * 40))
    assert [f"the encoder reads {longest}" in line for line in said] == [True]


def test_a_file_that_was_replaced_is_read_anew(place):
    before = node("pick_score")
    changed = weights("pick_score")
    changed["visual_projection.weight"] *= -1.0
    shot = images(picture(4, 64, 64))
    value = before.score(shot)
    save_file(changed, place / NAMES["pick_score"])
    assert torch.allclose(node("pick_score").score(shot), -value, atol=1e-6)
    save_file(weights("pick_score"), place / NAMES["pick_score"])


def test_a_cancel_stops_between_batches(place):
    reward = node("image_reward")
    reward.score(images(picture(0, 32, 32)))
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        reward.score(images(picture(0, 32, 32)))


def test_the_hosts_vocabulary_gives_the_published_tokens():
    for prompt, ids in REFERENCE["clip_ids"].items():
        assert clip_ids(prompt, reward_files.clip_vocabulary())[0].tolist() == ids
    assert max(map(len, REFERENCE["clip_ids"].values())) == 77


def test_missing_files_are_explained_and_unsafe_ones_refused(place):
    text = PreferenceReward.validate_inputs("HPS_v2_compressed.pt")
    assert "is not in" in text
    words = place / "bert-base-uncased" / "vocab.txt"
    content = words.read_text(encoding="utf-8")
    words.unlink()
    (place / NAMES["pick_score"]).unlink()
    folder_paths.filename_list_cache.clear()
    text = PreferenceReward.validate_inputs("PickScore_v1.safetensors")
    assert "yuvalkirstain/PickScore_v1" in text
    assert "3,944 MB" in text
    text = PreferenceReward.validate_inputs("ImageReward.pt")
    assert "google-bert/bert-base-uncased/resolve/main/vocab.txt" in text
    with pytest.raises(ValueError, match=r"vocab\.txt' is not in"):
        node("image_reward")
    words.write_text(content, encoding="utf-8")
    save_file(weights("pick_score"), place / NAMES["pick_score"])
    torch.save({"layers.0.weight": torch.zeros(2, 2), "run": Path("x")}, place / "odd.pt")
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, place / "head.pth")
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match=r"odd\.pt is not read: it holds more than weights"):
        node("odd.pt")
    with pytest.raises(ValueError, match="none of PickScore"):
        node("head.pth")


def test_a_search_by_hps_runs_in_a_server(server):
    folder = server.server.base / "models" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights("hps_v2_1")}, folder / NAMES["hps_v2_1"])
    prompt = "two red circles"
    workflow = {
        "1": ("FlowSearchLoadDemo", {"checkpoint": "base"}),
        "2": ("CLIPTextEncode", {"text": prompt, "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "5": ("FlowSearchPreference", {"weights": NAMES["hps_v2_1"], "prompt": prompt}),
        "6": (
            "FlowSearchRewardSearch",
            {"seed": 4, "steps": 4, "cfg": 1, "scheduler": "simple", "denoise": 1}
            | {"evaluations": 12, "target": "highest", "model": ["1", 0], "positive": ["2", 0]}
            | {"negative": ["3", 0], "latent_image": ["4", 0], "vae": ["1", 2], "reward": ["5", 0]},
        ),
        "7": ("PreviewImage", {"images": ["6", 1]}),
    }
    queued = {key: {"class_type": kind, "inputs": given} for key, (kind, given) in workflow.items()}
    assert server.run(queued)["7"]["images"]
    queued["5"]["inputs"]["weights"] = "ImageReward.pt"
    complaints = server.complaints(queued)
    assert set(complaints) == {("FlowSearchPreference", "weights")}
    (folder / NAMES["hps_v2_1"]).unlink()
