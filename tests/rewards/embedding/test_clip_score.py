"""CLIP Score and Image Match are cosines of the libraries' own embeddings."""

import re
import shutil

import encoders
import pytest
import torch
from encoders import pictures
from pil_pictures import processed
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from flowsearch.rewards.base import assess
from flowsearch.rewards.embedding.clip_score import ClipScore
from flowsearch.rewards.embedding.image_match import ImageMatch
from flowsearch.rewards.embedding.transformers_encoder import encoder, load
from flowsearch.rewards.weights.holder import Local

TEXT = "a photo of three red circles"
ALIGNED = ("clip", "siglip", "naflex")
LONGEST = {"clip": 16, "siglip": 16, "naflex": 64}


def features(found):
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    return found / found.norm(dim=-1, keepdim=True)


def library(kind, pixels=None, text=None):
    """The library's own processor, tokenizer and network, all through its Auto classes."""
    folder = encoders.folder(kind)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        if text is not None:
            settings = {"max_length": LONGEST[kind], "truncation": True, "return_tensors": "pt"}
            padding = "do_not_pad" if kind == "clip" else "max_length"
            ids = AutoTokenizer.from_pretrained(folder)(text, padding=padding, **settings)
            return features(model.get_text_features(ids["input_ids"]))
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        preprocess = encoders.encoder(kind).images.preprocess
        each = [processed(processor, preprocess, picture) for picture in pixels]
        inputs = {key: torch.cat([one[key] for one in each]) for key in each[0]}
        if kind == "dinov2":
            return features(model(**inputs))
        return features(model.get_image_features(**inputs))


def clip_score(kind, text=TEXT):
    made = encoders.encoder(kind)
    return ClipScore(made.images, made.text, text)


@pytest.mark.parametrize("kind", ALIGNED)
@pytest.mark.parametrize("size", [(61, 83), (300, 120), (32, 32)], ids=str)
def test_it_is_the_librarys_pipeline(kind, size):
    pixels = pictures(4, *size)
    expected = (library(kind, pixels) @ library(kind, text=TEXT).T)[:, 0]
    values = clip_score(kind).score(pixels.float() / 255)
    assert torch.allclose(values, expected, atol=1e-3)
    assert float(expected.std()) > 2e-3, "the pictures do not differ"


@pytest.mark.parametrize("kind", ALIGNED)
def test_the_prompt_decides(kind):
    pixels = pictures().float() / 255
    apart = clip_score(kind).score(pixels) - clip_score(kind, "two blue dogs").score(pixels)
    assert float(apart.abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["siglip", "naflex"])
def test_siglip_reads_lower_case(kind):
    text = encoders.encoder(kind).text
    ids = text.tokenize("red cat").ids
    assert torch.equal(text.tokenize("Red CAT").ids, ids)
    assert not torch.equal(text.tokenize("red dog").ids, ids)
    assert ids.shape == (1, LONGEST[kind])


def test_clip_reads_the_case_as_its_tokenizer_does():
    text = encoders.encoder("clip").text
    assert not torch.equal(text.tokenize("Red cat").ids, text.tokenize("red cat").ids)


@pytest.mark.parametrize("kind", ALIGNED)
def test_what_is_cut_off_is_said_for_every_picture_and_in_the_log(kind, caplog):
    long = " ".join(["red cat on the table"] * 14)
    pixels = pictures().float() / 255
    found = assess(clip_score(kind, long), pixels)
    assert all(f"reads {LONGEST[kind]}" in note for note in found.notes)
    assert f"reads {LONGEST[kind]}" in caplog.text
    expected = (library(kind, pictures()) @ library(kind, text=long).T)[:, 0]
    assert torch.allclose(found.values, expected, atol=1e-3)
    assert assess(clip_score(kind), pixels).notes == [""] * 4


def test_the_prompt_is_encoded_once():
    made, calls = encoders.encoder("clip"), []

    def counted(network, ids):
        calls.append(ids.shape)
        return made.text.forward(network, ids)

    text = type(made.text)(made.text.holder, counted, made.text.tokenize, 24)
    reward = ClipScore(made.images, text, TEXT)
    assert calls == []
    for _ in range(3):
        reward.score(pictures().float() / 255)
    assert calls == [(1, 6 + 2)]


def test_scoring_in_inference_mode_first_does_not_take_the_gradient_away():
    reward = clip_score("clip")
    images = pictures().float() / 255
    with torch.inference_mode():
        reward.score(images)
    images.requires_grad_()
    reward.score(images).sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_one_network_is_one_holder():
    reward = clip_score("clip")
    assert len(reward.holders) == 1


@pytest.mark.parametrize("kind", ALIGNED)
def test_in_half_precision_the_values_move_by_little(kind):
    """float16, which graphics cards get, against bfloat16: only the network is in it, pictures and
    cosines are not."""
    folder, exact = encoders.folder(kind), clip_score(kind)
    pixels = pictures().float() / 255
    apart = []
    for dtype in (torch.float16, torch.bfloat16):
        found = encoder(Local(load(folder, dtype)), folder)
        reward = ClipScore(found.images, found.text, TEXT)
        apart.append(float((reward.score(pixels) - exact.score(pixels)).abs().max()))
    assert 0.0 < apart[0] < 0.002
    assert apart[0] < apart[1]  # eight times finer in each product; of a few pictures' sums less


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="empty prompt"):
        clip_score("clip", "  \n")


def test_encoders_of_different_models_are_refused():
    clip, siglip = encoders.encoder("clip"), encoders.encoder("siglip")
    with pytest.raises(ValueError, match="do not share a space"):
        ClipScore(clip.images, siglip.text, TEXT)
    with pytest.raises(ValueError, match="do not share a space"):
        ClipScore(encoders.encoder("dinov2").images, siglip.text, TEXT)


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"'llama'.*clip, siglip"):
        load(tmp_path, torch.float32)
    (tmp_path / "config.json").write_text("{oops", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot load(?s:.*)published model"):
        load(tmp_path, torch.float32)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot load(?s:.*)published model"):
        load(tmp_path, torch.float32)
    (tmp_path / "model.safetensors").write_bytes(b"<!DOCTYPE html> not found")
    with pytest.raises(ValueError, match=r"cannot load(?s:.*)published model"):
        load(tmp_path, torch.float32)


def test_pickled_weights_are_not_read(tmp_path):
    shutil.copytree(encoders.folder("clip"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot load model.*safetensors"):
        load(tmp_path / "model", torch.float32)


@pytest.mark.parametrize("kind", [*ALIGNED, "dinov2"])
def test_a_folder_that_lacks_tensors_is_refused(kind, tmp_path):
    shutil.copytree(encoders.folder(kind), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if name.endswith("norm1.weight"))
    save_file({k: v for k, v in tensors.items() if k != lost}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 tensors .*{re.escape(lost)}"):
        load(tmp_path / "model", torch.float32)


class TestImageMatch:
    @pytest.mark.parametrize("kind", [*ALIGNED, "dinov2"])
    @pytest.mark.parametrize("rule", ["mean", "max"])
    def test_it_is_the_cosine_of_the_librarys_embeddings(self, kind, rule):
        references, pixels = [pictures(2, 50, 70), pictures(1, 90, 40)], pictures(5)
        there = torch.cat([library(kind, batch) for batch in references])
        each = library(kind, pixels) @ there.T
        expected = each.mean(dim=1) if rule == "mean" else each.amax(dim=1)
        images = encoders.encoder(kind).images
        reward = ImageMatch(images, [batch.float() / 255 for batch in references], rule)
        found = assess(reward, pixels.float() / 255)
        assert torch.allclose(found.values, expected, atol=1e-3)
        for parts, row in zip(found.parts, each.tolist(), strict=True):
            assert list(parts) == ["reference 1", "reference 2", "reference 3"]
            assert list(parts.values()) == pytest.approx(row, abs=1e-3)

    def test_a_picture_matches_itself(self):
        pixels = pictures().float() / 255
        reward = ImageMatch(encoders.encoder("dinov2").images, [pixels[2:3]])
        values = reward.score(pixels)
        assert int(values.argmax()) == 2
        assert float(values[2]) == pytest.approx(1.0, abs=1e-5)

    def test_no_reference_or_an_unknown_rule_is_refused(self):
        images = encoders.encoder("clip").images
        with pytest.raises(ValueError, match="no reference"):
            ImageMatch(images, [])
        with pytest.raises(ValueError, match="no reference"):
            ImageMatch(images, [torch.zeros(0, 8, 8, 3)])
        with pytest.raises(ValueError, match="median"):
            ImageMatch(images, [torch.zeros(1, 8, 8, 3)], "median")
        with pytest.raises(ValueError, match="not finite"):
            ImageMatch(images, [torch.full((1, 8, 8, 3), float("nan"))])
