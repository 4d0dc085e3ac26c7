"""CLAP Score against the library's own model and preprocessing, on small seeded models."""

import shutil

import pytest
import sounds
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from flowsearch.rewards.base import assess, models_of
from flowsearch.rewards.embedding.clap_score import clap_score, load
from flowsearch.rewards.embedding.log_mel import log_mel
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.testing import doubled
from flowsearch.rewards.weights.holder import Local

RATE = 48000
KINDS = ["unfused", "fused"]


def reference(kind, waveform, prompt=sounds.PROMPT):
    """The library's cosine for one mono sound, from its own forward."""
    folder = str(sounds.folder(kind))
    model = ClapModel.from_pretrained(folder).eval()
    features = ClapFeatureExtractor.from_pretrained(folder)(
        waveform.numpy(), sampling_rate=RATE, return_tensors="pt"
    )
    words = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    with torch.no_grad():
        out = model(
            input_ids=words["input_ids"],
            attention_mask=words.get("attention_mask"),
            input_features=features["input_features"].float(),
            is_longer=torch.as_tensor(features["is_longer"]),
        )
    return torch.nn.functional.cosine_similarity(out.audio_embeds, out.text_embeds).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [RATE // 5, 3 * RATE // 4, RATE])
def test_up_to_a_window_it_is_the_reference(kind, samples):
    waves = sounds.tones(3, samples)
    found = sounds.clap(kind).score(waves)
    wanted = [reference(kind, wave.mean(dim=0)) for wave in waves]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.01, "the sounds must make a difference"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (RATE + 1, [0, 1]),
        (2 * RATE, [0, RATE]),
        (5 * RATE // 2, [0, 3 * RATE // 4, 3 * RATE // 2]),
    ],
)
def test_of_a_longer_sound_windows_that_cover_it_count_alike(kind, samples, starts):
    waves = sounds.tones(2, samples)
    found = assess(sounds.clap(kind), waves)
    for row, wave in enumerate(waves):
        each = [reference(kind, wave.mean(dim=0)[at : at + RATE]) for at in starts]
        assert found.values[row] == pytest.approx(sum(each) / len(each), abs=1e-5)
        assert [*found.parts[row]] == [f"at {at / RATE:g} s" for at in starts]
        assert [*found.parts[row].values()] == pytest.approx(each, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_what_is_read_of_a_sound_is_what_the_library_reads(kind, padding):
    extractor = ClapFeatureExtractor.from_pretrained(str(sounds.folder(kind)))
    extractor.padding = padding
    ours = log_mel(extractor)
    for samples in (RATE // 5, RATE // 2 + 7, RATE):
        waves = sounds.tones(2, samples)[:, 0]
        waves[1, samples // 3 :] = 0.0  # silence
        for wave, found in zip(waves, ours(waves), strict=True):
            wanted = extractor(wave.numpy(), sampling_rate=RATE)["input_features"][0]
            assert torch.allclose(found, torch.as_tensor(wanted).float(), atol=1e-3)


def test_another_preprocessing_is_refused():
    with pytest.raises(ValueError, match="the preprocessing of this folder is object"):
        log_mel(object())


def test_a_sound_of_several_windows_changes_as_its_gradient_says():
    reward = doubled(sounds.clap())
    waves = sounds.tones(2, 5 * RATE // 2).double()
    way = torch.randn(waves.shape, generator=torch.Generator().manual_seed(4)).double()
    found = gradient_of(reward, waves)
    up, down = (gradient_of(reward, waves + h * way).values for h in (1e-8, -1e-8))
    slope = (found.gradient * way).sum(dim=(1, 2))
    assert torch.allclose((up - down) / 2e-8, slope, rtol=1e-4)


def test_long_sounds_get_the_same_value_every_time():
    waves = sounds.tones(1, 5 * RATE // 2)
    reward = sounds.clap()
    assert len({float(reward.score(waves)) for _ in range(5)}) == 1


def test_channels_are_averaged():
    stereo = sounds.tones(1, RATE // 2)
    found = sounds.clap().score(stereo)
    assert torch.allclose(found, sounds.clap().score(stereo.mean(dim=1, keepdim=True)), atol=1e-6)
    assert torch.allclose(found, sounds.clap().score(stereo.flip(1)), atol=1e-6)


def test_other_words_have_another_value_and_too_many_are_noted():
    wave = sounds.tones(1, RATE // 2)
    short, other, long = (
        assess(sounds.clap(prompt=p), wave) for p in (sounds.PROMPT, "a dog", "a dog " * 20)
    )
    assert abs(float(short.values - other.values)) > 1e-3
    assert [*other.notes] == [""]
    assert "the prompt has 42 tokens and the encoder reads 15" in long.notes[0]
    assert float(long.values) == pytest.approx(
        reference("unfused", wave[0].mean(dim=0), ("a dog " * 7)[:-5]), abs=0.05
    )


def test_it_asks_for_its_own_rate():
    spec = sounds.clap().spec
    assert (spec.domain, spec.sample_rate) == ("audio", RATE)
    assert models_of(sounds.clap()) == []


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="empty prompt"):
        sounds.clap(prompt=" ")


def test_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}', encoding="utf-8")
    with pytest.raises(
        ValueError, match="holds a model of type 'clip'; needed is one of type clap"
    ):
        load(tmp_path, torch.float32)


def test_a_folder_need_not_hold_places(tmp_path):
    """Numbers of positions are counted by the network; not every version saves them."""
    shutil.copytree(sounds.folder(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    drawn = {name: t for name, t in tensors.items() if t.is_floating_point()}
    assert len(drawn) < len(tensors)
    save_file(drawn, file, {"format": "pt"})
    network = load(tmp_path / "model", torch.float32)
    waves = sounds.tones(2, RATE // 2)
    found = clap_score(Local(network), tmp_path / "model", sounds.PROMPT).score(waves)
    assert torch.allclose(found, sounds.clap().score(waves), atol=1e-6)
