"""Rewards on embeddings in the real host: its own loaders' networks, folders, memory,
cancelling."""

import gc
import shutil
from pathlib import Path

import comfy.model_management as management
import encoders
import folder_paths
import host_encoders
import pytest
import torch
from comfy.sd import CLIP
from encoders import pictures
from real_weights import real
from safetensors.torch import save_file

from flowsearch.nodes.host.rewards import reward_files
from flowsearch.nodes.host.rewards.encoder import encoder_of, folder_encoder
from flowsearch.nodes.rewards.embeddings import (
    AestheticReward,
    ClipScoreReward,
    ImageMatchReward,
    LoadEncoder,
)
from flowsearch.rewards.base import assess
from flowsearch.rewards.embedding.clip_score import ClipScore
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.registry import REWARDS
from flowsearch.rewards.weights.preprocess import DINOV2_224

TEXT = "a photo of three red circles on a table"
IMAGES = pictures(5, 91, 120).float() / 255


@pytest.fixture(scope="module")
def model():
    return host_encoders.clip_model()


@pytest.fixture(scope="module")
def host_pair(model):
    return host_encoders.clip_vision(model), host_encoders.clip(model)


@pytest.fixture(scope="module")
def clip_folder(model, comfyui, tmp_path_factory):
    return host_encoders.folder(model, tmp_path_factory.mktemp("clip"), comfyui)


@pytest.fixture
def rewards_folder():
    """An empty models/flowsearch_rewards of the host's test folder, known to it."""
    reward_files.register()
    path = Path(folder_paths.get_folder_paths("flowsearch_rewards")[0])
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def reward_of(output):
    return output.args[0]


def by_host(pair, text=TEXT):
    return reward_of(ClipScoreReward.execute(pair[0], text, pair[1]))


def by_folder(folder, text=TEXT):
    return reward_of(ClipScoreReward.execute(folder_encoder(folder), text))


def climbs(reward):
    """A small way along its gradient a value rises by what that says."""
    images = IMAGES[3:4] * 0.9 + 0.05
    found = gradient_of(reward, images)
    way = found.gradient / found.gradient.abs().max()
    up, down = (gradient_of(reward, images + h * way).values for h in (1e-2, -1e-2))
    wanted = float((found.gradient * way).sum())
    assert float(up - down) / 2e-2 == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize(
    "text", [TEXT, "(red:1.5) [cat], embedding:nothing BREAK \\(x\\)", "red " * 99]
)
def test_the_hosts_networks_and_the_folder_score_alike(host_pair, clip_folder, text):
    """The same weights, pictures and words, weights in brackets and too long a text included."""
    with torch.inference_mode():
        host, folder = (
            assess(r, IMAGES) for r in (by_host(host_pair, text), by_folder(clip_folder, text))
        )
    assert torch.allclose(host.values, folder.values, atol=1e-5)
    assert list(host.notes) == list(folder.notes)
    assert float(folder.values.std()) > 1e-3


def test_a_gradient_passes_what_the_hosts_loaders_made_in_a_node(model, clip_folder):
    """Their weights are of inference mode, and are the same objects after."""
    with torch.inference_mode():
        host = by_host((host_encoders.clip_vision(model), host_encoders.clip(model)))
        network = host.images.holder.network
        host.score(IMAGES)
        before = [id(held) for held in network.parameters()]
        found = gradient_of(host, IMAGES)
    wanted = gradient_of(by_folder(clip_folder), IMAGES)
    assert all(held.is_inference() for held in network.parameters())
    assert [id(held) for held in network.parameters()] == before
    assert torch.allclose(found.values, wanted.values, atol=1e-5)
    assert float((found.gradient - wanted.gradient).abs().max()) < 1e-3 * float(
        wanted.gradient.abs().max()
    )


def test_weights_in_the_prompt_do_not_weigh(host_pair, model):
    """The host's own encoding of '(cat:3)' is not that of the words; ours is CLIP's of the
    characters."""
    vision, clip = host_pair
    text = encoder_of(vision, clip).text
    plain = text.tokenize("(cat:3)").ids
    ids = plain[0].tolist()
    assert ids[0] == 49406
    assert len(ids) == 77
    with torch.no_grad():
        found = model.get_text_features(input_ids=plain[:, : ids.index(49407) + 1])
        found = found if isinstance(found, torch.Tensor) else found.pooler_output
    expected = torch.nn.functional.normalize(found[0], dim=-1)
    assert torch.allclose(text.embed(plain), expected, atol=1e-5)


def test_settings_of_the_hosts_text_model_are_put_back(host_pair):
    vision, clip = host_pair
    network = clip.cond_stage_model.clip_l
    before = dict(vars(network))
    wanted = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
    encoder = encoder_of(vision, clip)
    encoder.text.embed(encoder.text.tokenize("a dog").ids)
    assert network.return_projected_pooled is False
    assert network.layer == before["layer"]
    again = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
    assert all(torch.equal(a, b) for a, b in zip(wanted, again, strict=True))


def test_what_the_host_loaded_is_not_copied_and_is_freed_by_it(host_pair):
    vision, clip = host_pair
    reward = by_host(host_pair)
    reward.score(IMAGES)
    assert reward.get_models() == [vision.patcher, clip.patcher]
    loaded = management.loaded_models()
    assert vision.patcher in loaded
    management.unload_all_models()
    assert management.loaded_models() == []
    assert torch.equal(reward.score(IMAGES), by_host(host_pair).score(IMAGES))


def test_a_text_model_without_projection_is_refused(model, host_pair):
    clip = host_encoders.clip(model, without="text_projection")
    # the host leaves the memory as it was; what it happens to hold must not matter to this test
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.zero_()
    with pytest.raises(ValueError, match=r"no projection.*model\.safetensors"):
        by_host((host_pair[0], clip))


@pytest.mark.parametrize("values", ["identity", "nan"])
def test_a_projection_that_no_training_leaves_is_refused(model, host_pair, values):
    clip = host_encoders.clip(model)
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    weight.data.copy_(torch.eye(32) if values == "identity" else torch.full((32, 32), torch.nan))
    with pytest.raises(ValueError, match="no projection"):
        by_host((host_pair[0], clip))


@pytest.mark.parametrize("has", [True, False])
def test_the_file_is_asked_for_its_projection_where_the_loader_noted_it(
    model, host_pair, tmp_path, has
):
    """Memory that holds another matrix of that shape looks trained; the file tells."""
    kept = ("text_model", "text_projection") if has else ("text_model",)
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if k.startswith(kept)}
    save_file(weights, tmp_path / "clip_l.safetensors")
    clip: CLIP = host_encoders.clip(model)
    clip.patcher.cached_patcher_init = (None, ([str(tmp_path / "clip_l.safetensors")], None))
    if has:
        by_host((host_pair[0], clip.clone()))
        return
    with pytest.raises(ValueError, match=r"no projection in clip_l\.safetensors"):
        by_host((host_pair[0], clip.clone()))


def test_a_vision_model_without_projection_is_refused(model):
    vision = host_encoders.clip_vision(model, without="visual_projection")
    vision.model.visual_projection.weight.data.zero_()
    with pytest.raises(ValueError, match="no projection"):
        encoder_of(vision)


def test_halves_that_do_not_fit_are_refused(host_pair):
    wide = host_encoders.clip_vision(host_encoders.clip_model(projection=64))
    with pytest.raises(ValueError, match=r"64 numbers.*'clip_l': 32"):
        by_host((wide, host_pair[1]))


def test_siglip_by_the_hosts_loader_cannot_read_and_says_so(host_pair):
    _, vision = host_encoders.siglip()
    with pytest.raises(ValueError, match="SigLIP needs a folder"):
        by_host((vision, host_pair[1]))


def test_clip_score_without_a_reader_is_refused(host_pair):
    with pytest.raises(ValueError, match="nothing that reads"):
        by_host((host_pair[0], None))


def test_a_clip_beside_a_folder_is_ignored_with_a_word(host_pair, clip_folder, caplog):
    folder = folder_encoder(clip_folder)
    with caplog.at_level("INFO", logger="flowsearch"):
        both = by_host((folder, host_pair[1]))
    assert "clip is not used" in caplog.text
    assert torch.equal(both.score(IMAGES), by_host((folder, None)).score(IMAGES))


def test_dinov2_by_the_host_is_the_librarys(host_pair):
    """Of the trained size; at another the host and transformers stretch positions differently."""
    model, vision = host_encoders.dinov2()
    output = ImageMatchReward.execute(
        vision, {"reference0": IMAGES[:2], "reference1": IMAGES[2:3]}, "mean"
    )
    with torch.no_grad():
        found = model(DINOV2_224(IMAGES)).pooler_output
    found = torch.nn.functional.normalize(found, dim=-1)
    values = reward_of(output).score(IMAGES)
    assert torch.allclose(values, (found @ found[:3].T).mean(dim=1), atol=1e-5)
    assert float(values.std()) > 1e-3
    climbs(reward_of(output))


def test_siglip_by_the_host_matches_by_the_mean_of_what_it_would_pool():
    model, vision = host_encoders.siglip()
    images = encoder_of(vision).images
    with torch.no_grad():
        found = model(images.preprocess(IMAGES)).last_hidden_state.mean(dim=1)
    expected = torch.nn.functional.normalize(found, dim=-1)
    # the host has SigLIP's layer norms with an epsilon of 1e-5, transformers with 1e-6
    assert torch.allclose(images.embed(IMAGES), expected, atol=2e-3)
    reward = reward_of(ImageMatchReward.execute(vision, {"reference0": IMAGES[1:2]}, "max"))
    assert int(reward.score(IMAGES).argmax()) == 1
    climbs(reward)


def test_scoring_is_cancelled_between_batches(host_pair, monkeypatch):
    """A cancel that comes while the second of three batches runs stops before the third."""
    reward = by_host(host_pair)
    reward.score(IMAGES[:1])
    network, calls = host_pair[0].model, []

    def cancelling(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            management.interrupt_current_processing()
        return type(network).forward(network, *args, **kwargs)

    monkeypatch.setattr(network, "forward", cancelling)
    many = IMAGES[:1].expand(80, -1, -1, -1)
    try:
        with pytest.raises(management.InterruptProcessingException):
            reward.score(many)
    finally:
        management.interrupt_current_processing(False)
    assert len(calls) == 2


def test_a_folder_is_one_network_for_two_nodes_and_is_freed(rewards_folder):
    shutil.copytree(encoders.folder("clip"), rewards_folder / "tiny-clip")
    folder_paths.filename_list_cache.clear()
    assert reward_files.choices(folders=True) == ["tiny-clip"]
    assert LoadEncoder.validate_inputs("tiny-clip") is True
    first, second = (reward_of(LoadEncoder.execute("tiny-clip")) for _ in range(2))
    assert first.images.holder is second.images.holder
    reward = reward_of(ClipScoreReward.execute(first, "a red cat"))
    values = reward.score(IMAGES)
    there = encoders.encoder("clip")
    alone = ClipScore(there.images, there.text, "a red cat")
    assert torch.allclose(values, alone.score(IMAGES), atol=1e-5)
    (patcher,) = reward.get_models()
    assert patcher in management.loaded_models()
    del first, second, reward, patcher
    gc.collect()
    management.unload_all_models()
    assert management.loaded_models() == []


def test_a_missing_folder_or_head_is_explained_with_its_source(rewards_folder):
    said = LoadEncoder.validate_inputs("clip-vit-large-patch14")
    assert "huggingface.co/openai/clip-vit-large-patch14" in said
    head = REWARDS["aesthetic"].weights[0]
    said = AestheticReward.validate_inputs(head.name)
    assert head.sha256 in said
    assert "Apache-2.0" in said
    assert str(rewards_folder) in said


def test_a_real_head_rates_by_the_hosts_clip_and_by_a_folder_alike(rewards_folder, comfyui):
    """The real LAION v2 head on a small CLIP of ViT-L/14's outer sizes."""
    name = REWARDS["aesthetic"].weights[0].name
    shutil.copy(real(name), rewards_folder / name)
    model = host_encoders.clip_model(side=224, projection=768)
    folder = host_encoders.folder(model, rewards_folder / "clip-l", comfyui)
    folder_paths.filename_list_cache.clear()
    assert reward_files.choices() == [name]
    by = [host_encoders.clip_vision(model), folder_encoder(folder)]
    rewards = [reward_of(AestheticReward.execute(encoder, name)) for encoder in by]
    assert rewards[0].head is rewards[1].head
    host, library = (reward.score(IMAGES) for reward in rewards)
    assert torch.allclose(host, library, atol=1e-4)
    assert float(host.std()) > 1e-3
    low, high = rewards[0].spec.low, rewards[0].spec.high
    assert low < float(host.min())
    assert float(host.max()) < high
    assert (round(low, 1), round(high, 1)) == (-12.8, 23.2)  # what the help page says


def graph(weights: str) -> dict:
    """A search by CLIP Score that holds Image Match out, with encoders from a folder."""

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    search = {"seed": 1, "steps": 4, "cfg": 1.0, "scheduler": "simple", "denoise": 1.0}
    search |= {"evaluations": 12, "target": "highest"}
    return {
        "1": node("FlowSearchLoadDemo"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="three red circles"),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node("FlowSearchLoadEncoder", weights=weights),
        "5": node("FlowSearchClipScore", encoder=["4", 0], prompt="three red circles"),
        "6": node("EmptyImage", width=64, height=64, batch_size=2, color=0xFF0000),
        "7": node(
            "FlowSearchImageMatch",
            encoder=["4", 0],
            rule="mean",
            **{"references.reference0": ["6", 0]},
        ),
        "8": node(
            "FlowSearchRewardSearch",
            model=["1", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            vae=["1", 2],
            reward=["5", 0],
            **{"held_out.held_out0": ["7", 0]},
            **search,
        ),
        "9": node("FlowSearchReport", report=["8", 2]),
        "10": node("PreviewAny", source=["9", 1]),
    }


def test_a_search_runs_by_them_over_the_server(server):
    folder = server.server.base / "models" / "flowsearch_rewards" / "tiny-clip"
    shutil.copytree(encoders.folder("clip"), folder)
    try:
        outputs = server.run(graph("tiny-clip"))
    finally:
        shutil.rmtree(folder)
    report = outputs["10"]["text"][0]
    assert "clip_score" in report
    assert "image_match" in report


def test_a_missing_folder_stops_a_workflow_before_it_runs(server):
    found = server.complaints(graph("clip-vit-large-patch14"))
    assert set(found) == {("FlowSearchLoadEncoder", "weights")}
