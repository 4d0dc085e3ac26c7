"""Vision-language models in the host: its Qwen3-VL and Qwen3.5, and folders of transformers."""

import gc
import shutil
from pathlib import Path

import comfy.model_management as management
import comfy.sd
import comfy.text_encoders.z_image
import folder_paths
import host_language
import pytest
import tiny_language
import torch
import transformers

from flowsearch.nodes.host.rewards import reward_files
from flowsearch.nodes.host.rewards.language_model import HostModel
from flowsearch.nodes.rewards.language import (
    LoadLanguageModel,
    VLMCountReward,
    VLMRatingReward,
    VQAScoreReward,
)
from flowsearch.nodes.sampling.demo_model import LoadDemo
from flowsearch.rewards.base import assess
from flowsearch.rewards.language.vision_language import Ask
from flowsearch.rewards.language.vqa_score import PAPER
from flowsearch.rewards.weights.files import FOLDER

MODELS = [host_language.qwen3_vl, host_language.qwen3_5, host_language.gemma4]
SHORT, LONG = "Is it red?", "Does this figure show a cat? Please answer yes or no."


@pytest.fixture(autouse=True)
def as_the_host_runs():
    with torch.inference_mode():
        yield
    management.interrupt_current_processing(False)


def pictures(count=2):
    generator = torch.Generator().manual_seed(11)
    return torch.rand(count, 64, 96, 3, generator=generator)


OWN = {"form": "question", "question": "How red is it, 1 to 5?", "answer": "Red: {score}"}
OWN |= {"lowest": 1, "highest": 5}

PUBLISHED = transformers.Qwen3VLConfig(
    text_config=dict(
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
    ),
    vision_config=dict(
        hidden_size=1024,
        intermediate_size=4096,
        depth=24,
        num_heads=16,
        out_hidden_size=2560,
        patch_size=16,
        deepstack_visual_indexes=[5, 11, 17],
    ),
    tie_word_embeddings=True,
)
"""Qwen3-VL 4B's."""


def interrupt(*_):
    management.interrupt_current_processing()


def is_loaded(patcher):
    return any(loaded.model is patcher for loaded in management.current_loaded_models)


@pytest.fixture
def llava():
    """A folder of transformers where the node looks for it."""
    reward_files.register()
    place = Path(folder_paths.get_folder_paths(FOLDER)[0]) / "tiny-llava"
    shutil.copytree(tiny_language.folder("llava"), place)
    folder_paths.filename_list_cache.clear()
    yield "tiny-llava"
    shutil.rmtree(place)
    folder_paths.filename_list_cache.clear()


class TestHostModel:
    """The host's own models, with few layers."""

    @pytest.mark.parametrize("make", MODELS)
    def test_logits_choose_what_the_host_generates(self, make):
        clip, images = make(), pictures(1)
        tokens = clip.tokenize(LONG, image=images, skip_template=False, thinking=False)
        said = clip.generate(tokens, do_sample=False, max_length=4)
        model = HostModel(clip)
        for length in range(4):
            row = model.next_token(images, [Ask(0, LONG, tuple(said[:length]))])[0]
            assert int(row.argmax()) == said[length]
        assert model.answer(images, [Ask(0, LONG)], 4) == [clip.decode(said)]

    @pytest.mark.parametrize("make", MODELS)
    def test_pictures_questions_and_what_was_said_matter(self, make):
        asks = [Ask(0, SHORT), Ask(1, SHORT), Ask(0, LONG), Ask(0, SHORT, (2000,)), Ask(0, SHORT)]
        found = HostModel(make()).next_token(pictures(2), asks)
        assert torch.allclose(found[0], found[-1], atol=1e-5)
        for other in found[1:4]:
            assert float((found[0] - other).abs().max()) > 1e-2

    def test_logits_are_those_of_transformers(self):
        """The same weights in the library's Qwen3-VL, on the host's own tokens."""
        clip, images = host_language.qwen3_vl(), pictures(2)
        network = transformers_qwen3_vl(clip)
        asks = [Ask(i, question) for i in range(2) for question in (SHORT, LONG)]
        found = HostModel(clip).next_token(images, asks)
        for row, ask in zip(found, asks, strict=True):
            expected = network(**transformers_inputs(clip, images[ask.picture], ask.question))
            assert torch.allclose(row, expected.logits[0, -1], rtol=1e-3, atol=1e-3)

    def test_rewards_take_it_and_the_host_frees_it(self):
        clip, images = host_language.qwen3_vl(), pictures(3)
        vqa = VQAScoreReward.execute(clip, "a cat", PAPER)[0]
        count = VLMCountReward.execute(clip, "two cats and 12 dogs")[0]
        for reward in (vqa, count):
            values = reward.score(images)
            assert torch.allclose(values, torch.cat([reward.score(i[None]) for i in images]))
            assert reward.get_models() == [clip.patcher]
            assert is_loaded(clip.patcher)
            management.unload_all_models()
            assert not is_loaded(clip.patcher)
            assert torch.allclose(values, reward.score(images))

    @pytest.mark.parametrize("make", MODELS)
    def test_what_an_answer_begins_with_is_what_the_host_reads_it_as(self, make):
        """The tokens are among those of the host's own reading, one after another."""
        clip, text = make(), "Score (1-5): "
        tokens = HostModel(clip).tokens(text)
        (row,) = next(iter(clip.tokenize(text, skip_template=True, min_length=1).values()))
        there, count = [token for token, *_ in row], len(tokens)
        assert count > 5
        assert any(there[i : i + count] == [*tokens] for i in range(len(there)))
        assert HostModel(clip).tokens("") == (), "nothing of what begins or ends a text"

    def test_a_rating_is_an_expectation_and_the_host_frees_its_model(self):
        clip, images = host_language.qwen3_vl(), pictures(2)
        unified = VLMRatingReward.execute(clip, "a cat", {"form": "unified_reward"})[0]
        parts = assess(unified, images[:1]).parts[0]
        assert [name.split()[0] for name in parts] == ["Alignment", "Coherence", "Style"]
        reward = VLMRatingReward.execute(clip, "", OWN)[0]
        values = reward.score(images)
        assert torch.allclose(values, torch.cat([reward.score(i[None]) for i in images]))
        assert bool(((values > 1) & (values < 5)).all())
        assert float(values.std()) > 1e-5
        assert reward.get_models() == [clip.patcher]
        management.unload_all_models()
        assert not is_loaded(clip.patcher)

    def test_the_published_layout_of_a_reward_model_fits_the_host_s_loader(self, monkeypatch):
        """UnifiedReward-2.0 on Qwen3-VL 4B as transformers saves it: every name is the host's."""
        meta = torch.device("meta")
        monkeypatch.setattr(management, "text_encoder_offload_device", lambda: meta)
        monkeypatch.setattr(management, "text_encoder_initial_device", lambda *_: meta)
        with meta:
            published = transformers.Qwen3VLForConditionalGeneration(PUBLISHED).state_dict()
            weights = {k: v for k, v in published.items() if k != "lm_head.weight"}
            clip = comfy.sd.load_text_encoder_state_dicts([dict(weights)])
        own = clip.cond_stage_model.qwen3vl_4b.transformer.state_dict()
        assert len(weights) == len(own) == 713
        assert sum(v.numel() for v in own.values()) == sum(v.numel() for v in weights.values())
        assert hasattr(HostModel(clip), "next_token")

    def test_text_is_the_other_way(self):
        clip = host_language.qwen3_vl()
        reward = VLMCountReward.execute(clip, "two cats", method="greedy_text")[0]
        found = assess(reward, pictures())
        assert all("for 2 cats" in note for note in found.notes)

    def test_nothing_stays_on_the_host_s_model_and_a_cancel_is_obeyed(self):
        clip, images = host_language.qwen3_vl(), pictures(2)
        norm = clip.cond_stage_model.qwen3vl_4b.transformer.model.norm
        hook = norm.register_forward_hook(interrupt)
        asks = [Ask(0, SHORT), Ask(1, SHORT)]
        with pytest.raises(management.InterruptProcessingException):
            HostModel(clip).next_token(images, asks)
        hook.remove()
        assert not norm._forward_hooks
        assert HostModel(clip).next_token(images, asks).shape[0] == 2

    def test_a_clip_that_cannot_be_asked_is_refused(self):
        with pytest.raises(ValueError, match=r"generates no text.*Load CLIP"):
            VQAScoreReward.execute(LoadDemo.execute()[1], "a cat", PAPER)

    def test_a_model_that_does_not_see_is_refused(self):
        reward = VQAScoreReward.execute(text_model(), "a cat", PAPER)[0]
        with pytest.raises(ValueError, match=r"reads no pictures.*Qwen3-VL"):
            reward.score(pictures())


def text_model():
    """The host's Qwen3, which generates text and takes no pictures."""

    class Target:
        params = {}  # noqa: RUF012
        clip = comfy.text_encoders.z_image.te()
        tokenizer = comfy.text_encoders.z_image.ZImageTokenizer

    options = {"qwen3_4b_model_config": host_language.TEXT, "dtype": torch.float32}
    return comfy.sd.CLIP(Target, model_options=options)


def transformers_qwen3_vl(clip):
    """The library's model with the host's weights."""
    config = transformers.Qwen3VLConfig(
        text_config=dict(
            **host_language.TEXT,
            head_dim=128,
            vocab_size=151936,
            rope_theta=5000000.0,
            rope_scaling={
                "rope_type": "default",
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
                "rope_theta": 5000000.0,
            },
        ),
        vision_config=dict(
            **host_language.VISION["qwen3vl_4b"], num_heads=2, out_hidden_size=64, patch_size=16
        ),
        tie_word_embeddings=True,
    )
    network = transformers.Qwen3VLForConditionalGeneration(config).eval()
    own = clip.cond_stage_model.qwen3vl_4b.transformer.state_dict()
    weights = {
        f"model.{name}"
        if name.startswith("visual.")
        else name.replace("model.", "model.language_model.", 1): value.clone()
        for name, value in own.items()
    }
    weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("rotary" in name or "inv_freq" in name for name in missing)
    return network


def transformers_inputs(clip, image, question):
    """The host's tokens with as many picture tokens as there are, and the library's pixels."""
    processor = transformers.Qwen2VLImageProcessor(
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_rescale=False,
        min_pixels=3136,
        max_pixels=12845056,
    )
    made = processor(images=[image.movedim(-1, 0)], return_tensors="pt")
    pads = int(made["image_grid_thw"].prod()) // 4
    (row,) = clip.tokenize(question, image=image[None], min_length=1, thinking=False).values()
    ids = []
    for token, *_ in row[0]:
        ids += [151655] * pads if isinstance(token, dict) else [token]
    tokens = torch.tensor([ids])
    return dict(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        mm_token_type_ids=(tokens == 151655).long(),
        pixel_values=made["pixel_values"],
        image_grid_thw=made["image_grid_thw"],
    )


class TestFolder:
    """A folder of transformers, under the host's memory manager."""

    def test_it_is_listed_loaded_once_and_freed(self, llava):
        assert LoadLanguageModel.define_schema().inputs[0].options == [llava]
        assert LoadLanguageModel.validate_inputs(llava) is True
        first, second = LoadLanguageModel.execute(llava)[0], LoadLanguageModel.execute(llava)[0]
        assert first.holder is second.holder
        images = pictures()
        reward = VQAScoreReward.execute(first, "a cat", PAPER)[0]
        values = reward.score(images)
        (patcher,) = reward.get_models()
        assert is_loaded(patcher)
        management.unload_all_models()
        assert not is_loaded(patcher)
        assert torch.equal(reward.score(images), values)
        plain = tiny_language.language_model("llava")
        expected = VQAScoreReward.execute(plain, "a cat", PAPER)[0].score(images)
        assert torch.allclose(values, expected, rtol=1e-4)
        del first, second, reward, patcher
        management.unload_all_models()
        gc.collect()

    def test_a_cancel_is_obeyed_between_batches(self, llava):
        model = LoadLanguageModel.execute(llava)[0]
        calls = []
        network = model.holder.network
        network.register_forward_pre_hook(lambda *_: calls.append(1))
        network.register_forward_hook(interrupt)
        with pytest.raises(management.InterruptProcessingException):
            model.next_token(pictures(), [Ask(i % 2, SHORT) for i in range(20)])
        assert len(calls) == 1

    def test_a_missing_folder_is_explained(self):
        text = LoadLanguageModel.validate_inputs("Qwen3-VL-4B-Instruct")
        for word in ("huggingface.co/Qwen/Qwen3-VL-4B-Instruct", "Apache-2.0", FOLDER):
            assert word in text
