"""CLAP Score in the real host: its folder, memory, and a search of sound for it."""

import shutil
from pathlib import Path

import comfy.model_management as management
import families as f
import folder_paths
import host_models as hm
import pytest
import searching as s
import sounds
import torch
import torchaudio
import video_models as vm
from comfy_extras.nodes_audio import VAEDecodeAudio

from flowsearch.nodes.host.rewards import reward_files
from flowsearch.nodes.rewards.sound import ClapScoreReward
from flowsearch.rewards.base import models_of

NAME = "tiny-clap"
RATE = 48000


@pytest.fixture
def folder():
    """A CLAP model in models/flowsearch_rewards of the host's test folder."""
    reward_files.register()
    path = Path(folder_paths.get_folder_paths("flowsearch_rewards")[0])
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sounds.folder(), path / NAME)
    yield path
    shutil.rmtree(path / NAME)


def reward(prompt=sounds.PROMPT):
    return ClapScoreReward.execute(NAME, prompt).result[0]


def loaded(found):
    return [model for model in models_of(found) if model in management.loaded_models()]


def test_it_scores_as_without_the_host_and_is_freed(folder):
    assert ClapScoreReward.define_schema().inputs[0].options == [NAME]
    waves, made = sounds.tones(3, RATE // 2), reward()
    with torch.inference_mode():
        found = made.score(waves)
    assert torch.allclose(found, sounds.clap().score(waves), atol=1e-5)
    assert loaded(made) == models_of(made) != []
    management.unload_all_models()
    assert loaded(made) == []
    assert torch.allclose(made.score(waves), found, atol=1e-5)


def test_two_nodes_have_one_network(folder):
    one, two = reward(), reward("a dog")
    assert models_of(one) == models_of(two)
    assert abs(float(one.score(sounds.tones(1, RATE)) - two.score(sounds.tones(1, RATE)))) > 1e-4


def test_a_cancel_is_obeyed(folder):
    made = reward()
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        made.score(sounds.tones(1, RATE))


def test_a_missing_folder_is_explained(folder):
    said = ClapScoreReward.validate_inputs("clap-htsat-unfused")
    assert "https://huggingface.co/laion/clap-htsat-unfused" in said
    assert ClapScoreReward.validate_inputs(NAME) is True


def test_a_search_finds_the_sound_that_fits_best(folder):
    family = f.BY_NAME["Stable Audio"]
    guider = hm.guider(f.model(family.name), f.conditioning(family))
    made = reward()
    samples, _, report = s.search(
        guider, s.flow(), {"samples": torch.zeros(1, 64, 1)}, vae=vm.audio_vae(), reward=made,
        evaluations=9, sigmas=torch.tensor([1.0, 0.8, 0.4, 0.0]), strategy=s.strategy("rbf"),
    )  # fmt: skip
    with torch.no_grad():
        audio = VAEDecodeAudio.execute(vm.audio_vae(), samples)[0]
    waveform = torchaudio.functional.resample(audio["waveform"], audio["sample_rate"], RATE)
    assert report.best(0) == pytest.approx(float(made.score(waveform)), abs=1e-4)
    assert report.best(0) >= report.plain(0)
    values = [row["scores"]["value"] for row in report.trace.record["evaluated"] if row["scores"]]
    assert len({round(value, 5) for value in values}) > 3
