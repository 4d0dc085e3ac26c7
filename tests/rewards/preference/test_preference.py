"""Human preference: published files are read whole, and values are those of the published code."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from preference_weights import DATA, SIZES, VOCABULARY, images, picture, published, seeded, small
from reward_cases.preference import clip_preference, holder, image_reward
from torchvision import transforms
from torchvision.transforms import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from flowsearch.rewards.preference.clip_preference import (
    LETTERBOX_224,
    ClipPreference,
    clip_ids,
)
from flowsearch.rewards.preference.image_reward import ImageReward, bert_ids
from flowsearch.rewards.preference.kinds import network_from
from flowsearch.rewards.weights.holder import Local

REFERENCE = json.loads((DATA / "preference_reference.json").read_text(encoding="utf-8"))
"""What hpsv2 1.2.0 and image-reward 1.5 said; scripts/preference_reference.py made it."""

UNUSED = ("position_ids", "vision_proj.weight", "vision_proj.bias", "text_proj.weight")
UNUSED += ("text_proj.bias",)


def meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shown(case):
    """The two pictures of the reference: one as the network sees it, one that has to be resized."""
    return images(picture(*((0, 224, 224) if case == "as it is" else (1, 300, 180))))


class TestPublishedFiles:
    """Every tensor of a published file gets its place, and no file is read by half."""

    @pytest.mark.parametrize("name", SIZES)
    def test_every_published_tensor_is_in_the_network(self, name):
        shapes = published(name)
        network = network_from(meta(shapes), torch.float16)
        needed = sum(
            int(np.prod(shape)) for key, shape in shapes.items() if not key.endswith(UNUSED)
        )
        assert sum(p.numel() for p in network.parameters()) == needed
        assert not any(buffer.is_meta for buffer in network.buffers())

    @pytest.mark.parametrize("name", ["pick_score", "hps_v2_1"])
    def test_the_network_is_clip_h(self, name):
        config = network_from(meta(published(name)), torch.float32).clip.config
        vision, text = config.vision_config, config.text_config
        assert (vision.hidden_size, vision.num_hidden_layers) == (1280, 32)
        assert (vision.image_size, vision.patch_size) == (224, 14)
        assert (text.hidden_size, text.num_hidden_layers) == (1024, 24)
        assert vision.num_attention_heads == text.num_attention_heads == 16
        assert vision.hidden_act == text.hidden_act == "gelu"
        assert text.eos_token_id == 49407

    def test_the_network_is_blip_large_with_bert_base(self):
        network = network_from(meta(published("image_reward")), torch.float32)
        vision, text = network.vision.config, network.text.config
        assert (vision.num_hidden_layers, vision.num_attention_heads) == (24, 16)
        assert (vision.image_size, vision.patch_size) == (224, 16)
        assert (text.num_hidden_layers, text.num_attention_heads) == (12, 12)
        assert (vision.layer_norm_eps, text.layer_norm_eps) == (1e-6, 1e-12)
        assert network.words == 30524

    def test_the_head_stays_in_full_precision(self):
        network = network_from(meta(published("image_reward")), torch.float16)
        assert {p.dtype for p in network.head.parameters()} == {torch.float32}
        assert {p.dtype for p in network.vision.parameters()} == {torch.float16}

    @pytest.mark.parametrize("name", SIZES)
    def test_each_missing_tensor_is_noticed(self, name):
        shapes = small(name)
        for key in shapes:
            if key.endswith(UNUSED):
                continue
            rest = {other: shape for other, shape in shapes.items() if other != key}
            with pytest.raises(ValueError, match=r"missing|none of"):
                network_from(meta(rest), torch.float32)

    def test_what_is_missing_unknown_or_of_another_shape_is_said(self):
        shapes = small("hps_v2_1")
        del shapes["ln_final.bias"]
        with pytest.raises(ValueError, match=r"HPS v2.*text_model.final_layer_norm.bias is miss"):
            network_from(meta(shapes), torch.float32)
        for name in SIZES:
            with pytest.raises(ValueError, match=r"nonsense.weight is in it not known"):
                network_from(meta(small(name) | {"nonsense.weight": (3, 3)}), torch.float32)
        shapes = small("image_reward") | {"blip.visual_encoder.norm.bias": (7,)}
        with pytest.raises(ValueError, match=r"vision.post_layernorm.bias is \(7,\) instead of"):
            network_from(meta(shapes), torch.float32)

    def test_another_file_and_another_clip_are_refused(self):
        with pytest.raises(ValueError, match="none of PickScore"):
            network_from(meta({"layers.0.weight": (1024, 768)}), torch.float32)
        with pytest.raises(ValueError, match="none of PickScore"):
            network_from({}, torch.float32)
        wide = {160: 768, 320: 3072, 480: 2304}
        shapes = {
            key: tuple(wide.get(size, size) for size in shape)
            for key, shape in small("hps_v2_1").items()
        }
        with pytest.raises(ValueError, match="768 wide"):
            network_from(meta(shapes), torch.float32)


class TestAgainstThePublishedCode:
    """The same weights and pictures, in hpsv2 and image-reward."""

    @pytest.mark.parametrize(("case", "near"), [("as it is", 1e-6), ("resized", 1e-6)])
    def test_hps_is_hpsv2s(self, case, near):
        ids = torch.tensor([REFERENCE["hps"]["ids"]])
        found = ClipPreference(holder("hps_v2_1"), ids).score(shown(case)).item()
        assert found == pytest.approx(REFERENCE["hps"]["values"][case == "resized"], abs=near)

    @pytest.mark.parametrize(("case", "near"), [("as it is", 1e-5), ("resized", 5e-5)])
    def test_image_reward_is_image_rewards(self, case, near, vocabulary):
        ids = bert_ids(REFERENCE["image_reward"]["prompt"], vocabulary, 40)
        found = ImageReward(holder("image_reward"), ids).score(shown(case)).item()
        wanted = REFERENCE["image_reward"]["values"][case == "resized"]
        assert found == pytest.approx(wanted, abs=near)

    def test_hps_sees_the_whole_picture_between_black_bars(self):
        shot = torch.from_numpy(picture(1, 300, 180)).movedim(-1, 0).float() / 255.0
        seen = functional.resize(shot, [224, 134], transforms.InterpolationMode.BICUBIC)
        seen = torch.nn.functional.pad(seen, (45, 45, 0, 0))
        wanted = functional.normalize(seen, LETTERBOX_224.mean, LETTERBOX_224.std)
        found = LETTERBOX_224(images(picture(1, 300, 180)))[0]
        assert torch.allclose(found, wanted, atol=1e-4)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """CLIP's kind of vocabulary, small: letters, letters that end a word, 42 words in all."""
    letters = "abcdefghijklmnopqrs,t"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "do"]
    words += [f"filler{i}" for i in range(94 - len(words))] + ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("clip")
    ids = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    merges = "#version: 0.2\nc a\nca t</w>\nd o\n"
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    return folder


class TestPickScore:
    """As its page computes it, by CLIPModel and CLIPProcessor."""

    @pytest.mark.parametrize("prompt", ["a cat,  a DOG", "cats and dogs " * 30, ""])
    @pytest.mark.parametrize("end", [2, 95])
    def test_it_is_the_librarys_pipeline(self, tokenizer, prompt, end):
        weights = seeded(small("pick_score"))
        sizes = {"hidden_act": "gelu", "num_attention_heads": 2, "num_hidden_layers": 2}
        model = CLIPModel(
            CLIPConfig(
                projection_dim=128,
                vision_config=sizes
                | {"hidden_size": 160, "intermediate_size": 320, "patch_size": 14},
                text_config=sizes
                | {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 96}
                | {"bos_token_id": 94, "eos_token_id": end},  # the published file says 2
            )
        ).eval()
        model.load_state_dict(
            {key: value for key, value in weights.items() if not key.endswith("position_ids")}
        )
        processor = CLIPProcessor(
            CLIPImageProcessor(), CLIPTokenizer.from_pretrained(str(tokenizer))
        )
        shots = [picture(seed, 224, 224) for seed in range(3)]
        inputs = processor(
            text=[prompt],
            images=[Image.fromarray(shot) for shot in shots],
            padding=True,
            truncation=True,
            max_length=77,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = model(**inputs).logits_per_image[:, 0]
        reward = ClipPreference(holder("pick_score"), clip_ids(prompt, tokenizer))
        wanted = logits / model.logit_scale.exp()
        assert torch.allclose(reward.score(images(*shots)), wanted, atol=2e-6)


class TestText:
    """Tokens, padding, and how often a prompt is encoded."""

    def test_berts_tokens_are_the_published_ones(self, vocabulary):
        for prompt, ids in REFERENCE["bert_ids"].items():
            assert bert_ids(prompt, vocabulary, 40)[0].tolist() == ids
        assert max(map(len, REFERENCE["bert_ids"].values())) == 35

    @pytest.mark.parametrize("words", [30524, 39])
    def test_another_vocabulary_is_refused(self, vocabulary, words):
        with pytest.raises(ValueError, match=r"has 38 words.*bert-base-uncased"):
            bert_ids("a cat", vocabulary, words)

    @pytest.mark.parametrize("padding", [0, 95, 7])
    def test_what_follows_the_end_of_the_prompt_changes_nothing(self, padding):
        network = holder("hps_v2_1").network
        ids = torch.tensor([[94, 5, 17, 3, 60, 95]])
        padded = torch.cat([ids, torch.full((1, 71), padding)], dim=1)
        with torch.no_grad():
            assert torch.allclose(network.text(padded), network.text(ids), atol=1e-6)
            other = torch.tensor([[94, 5, 17, 4, 60, 95]])
            assert not torch.allclose(network.text(other), network.text(ids), atol=1e-3)

    @pytest.mark.parametrize("name", ["pick_score", "hps_v2_1"])
    def test_the_prompt_is_encoded_once(self, name):
        reward = clip_preference(name)
        calls = []
        model = reward.holder.network.clip.text_model
        hook = model.register_forward_hook(lambda *_: calls.append(1))
        for seed in range(3):
            reward.score(images(picture(seed, 64, 64)))
        hook.remove()
        assert calls == [1]

    @pytest.mark.parametrize(
        ("make", "word"), [(lambda: clip_preference("hps_v2_1"), 30), (image_reward, 7)]
    )
    def test_another_prompt_has_another_value(self, make, word):
        reward = make()
        ids = reward.ids.clone()
        ids[0, 2] = word
        other = type(reward)(reward.holder, ids)
        shot = images(picture(3, 96, 96))
        assert abs(reward.score(shot) - other.score(shot)).item() > 1e-3


class TestHalfTypes:
    """float16, which the node takes on a GPU, keeps values; so does bfloat16, worse."""

    @pytest.mark.parametrize("make", [partial(clip_preference, "hps_v2_1"), image_reward])
    @pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.02), (torch.bfloat16, 0.3)])
    def test_the_error_is_a_small_part_of_the_spread(self, make, dtype, error):
        shots = images(*(picture(seed, 112, 112) for seed in range(12)))
        whole, half = make().score(shots), make(dtype=dtype).score(shots)
        assert half.dtype == torch.float32
        assert float((half - whole).abs().max()) < error * float(whole.std())


@pytest.mark.parametrize("name", ["pick_score", "hps_v2_1"])
def test_a_first_score_in_inference_mode_leaves_gradients_possible(name):
    reward = clip_preference(name)
    shots = images(picture(0, 64, 64))
    with torch.inference_mode():
        reward.score(shots)
    reward.score(shots.requires_grad_()).sum().backward()
    assert float(shots.grad.abs().sum()) > 0


def test_a_local_holder_takes_small_batches():
    shots = images(*(picture(seed, 64, 64) for seed in range(5)))
    network = holder("image_reward").network
    ids = torch.tensor([[2, 5, 6, 8, 9, 3]])
    by_two = ImageReward(Local(network, batch=2), ids).score(shots)
    assert torch.allclose(by_two, ImageReward(Local(network), ids).score(shots), atol=1e-5)
