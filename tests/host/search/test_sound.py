"""A search of sound: the reward hears what VAE Decode Audio makes, at the rate it asks for.

Stable Audio and LTX 2 of the host's own classes, small and with random weights, and their VAEs.
"""

from pathlib import Path

import comfy.model_management
import families as f
import folder_paths
import host_models as hm
import pytest
import searching as s
import torch
import torchaudio
import video_models as vm
from comfy.model_management import InterruptProcessingException
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_extras.nodes_audio import VAEDecodeAudio

from flowsearch.nodes.host.page.progress import show_rescued
from flowsearch.nodes.host.search.views import STRIP, Decoders, Rows, strip
from flowsearch.rewards.base import RewardSpec
from flowsearch.rewards.combination import combine
from flowsearch.rewards.frames import FrameReward, places
from flowsearch.rewards.latent import LatentReward

SIGMAS = torch.tensor([1.0, 0.8, 0.4, 0.0])
SOUND, BOTH = f.BY_NAME["Stable Audio"], f.BY_NAME["LTX 2"]


class Loudness:
    """Mean square of a sound; what it was given is kept."""

    def __init__(self, rate=0, act=None):
        self.spec = RewardSpec("loudness", "x", 0.0, 9.0, domain="audio", sample_rate=rate)
        self.heard, self.act = [], act

    def score(self, waveforms):
        self.heard.append(waveforms.clone())
        if self.act:
            self.act(len(self.heard))
        return waveforms.float().square().mean(dim=(1, 2))


def latent(family, rows=1):
    """LATENT of a family, short."""
    if family is SOUND:
        return {"samples": torch.zeros(rows, 64, 3)}
    return vm.ltx_latent(rows)


def video_only():
    """LATENT of LTX 2 to which no sound was joined."""
    return {"samples": vm.ltx_latent()["samples"].unbind()[0]}


def run(family, reward, rows=1, samples=None, **given):
    guider = hm.guider(f.model(family.name), f.conditioning(family))
    defaults = {"evaluations": 8, "sigmas": SIGMAS, "strategy": s.strategy("rbf")}
    if family is SOUND:
        defaults["vae"] = vm.audio_vae()
    else:
        defaults |= {"vae": vm.ltx_vae(), "audio_vae": vm.ltx_audio_vae()}
    samples = samples or latent(family, rows)
    return s.search(guider, s.flow(), samples, reward=reward, **{**defaults, **given})


def decoded(vae, samples):
    """What the host's VAE Decode Audio puts out."""
    with torch.no_grad():
        return VAEDecodeAudio.execute(vae, {"samples": samples["samples"]})[0]


def scored(report):
    return [row["scores"] for row in report.trace.record["evaluated"] if row["scores"]]


def test_the_value_is_that_of_vae_decode_audio():
    """Loud enough that the host turns it down, or its rule would not be tried."""
    samples, picture, report = run(SOUND, Loudness())
    audio = decoded(vm.audio_vae(), samples)
    assert (audio["sample_rate"], audio["waveform"].shape) == (44100, (1, 2, 3 * 2048))
    assert float(audio["waveform"].std()) == pytest.approx(0.2, abs=1e-3), "it was not turned down"
    reward = LatentReward("mean")
    samples, _, report = run(SOUND, reward, held_out={"reward0": Loudness()})
    heard = float(decoded(vm.audio_vae(), samples)["waveform"].square().mean())
    rows = [row["scores"] for row in report.trace.record["finished"]]
    best = max(rows, key=lambda row: row["value"])
    assert best["held_out"]["loudness"] == pytest.approx(heard, rel=1e-4)
    assert isinstance(picture, ExecutionBlocker)
    assert "VAE Decode Audio" in picture.message


class Top(Loudness):
    """The largest sample: other sounds have another value, whatever their loudness."""

    def score(self, waveforms):
        super().score(waveforms)
        return waveforms.amax(dim=(1, 2)).float()


def test_a_search_finds_the_sound_that_it_puts_out():
    samples, _, report = run(SOUND, Top(), evaluations=24, strategy=s.strategy("best_of_n"))
    found = float(decoded(vm.audio_vae(), samples)["waveform"].max())
    assert report.best(0) == pytest.approx(found, rel=1e-4)
    assert report.best(0) > report.plain(0)
    assert len({row["value"] for row in scored(report)}) > 3


@pytest.mark.parametrize("rate", [16000, 48000])
def test_it_is_resampled_to_what_the_reward_asks_for(rate):
    reward = Top(rate)
    samples, _, report = run(SOUND, reward)
    waveform = decoded(vm.audio_vae(), samples)["waveform"]
    wanted = torchaudio.functional.resample(waveform, 44100, rate)
    assert {heard.shape[2] for heard in reward.heard} == {wanted.shape[2]}
    assert any(torch.allclose(heard, wanted, atol=1e-5) for heard in reward.heard)
    assert report.best(0) == pytest.approx(float(wanted.max()), rel=1e-4)


def test_values_do_not_depend_on_the_rows_of_a_call():
    one, four = (
        [row["value"] for row in scored(run(SOUND, Top(), evaluations=12,
                                            strategy=s.strategy("rbf", rows_per_call=n))[2])]
        for n in (1, 4)
    )  # fmt: skip
    assert one == pytest.approx(four, abs=1e-4)


def test_sounds_are_decoded_and_heard_one_at_a_time():
    """Those of four candidates, minutes long, would be there at once."""
    reward = Top()
    _, _, report = run(SOUND, reward, strategy=s.strategy("rbf", rows_per_call=4))
    assert max(rows for _, rows in report.chunks) == 4
    assert {len(heard) for heard in reward.heard} == {1}


def test_what_ace_step_makes_is_sound():
    """Its latents have the rank of pictures'; its VAE tells."""
    vae = vm.ace_vae()
    latents = torch.randn(1, 8, 16, 4, generator=torch.Generator().manual_seed(2))
    waveform = decoded(vae, {"samples": latents})["waveform"]
    rows = Rows(latents, [], Decoders.of(vae))
    assert waveform.shape == (1, 2, 4 * 4096)
    with torch.no_grad():
        assert torch.equal(rows.of(RewardSpec("x", "x", 0.0, 1.0, domain="audio")), waveform)
    assert not rows.is_still
    assert float(waveform.std()) > 0.0


def test_video_with_sound_is_seen_and_heard():
    """The picture by the video's VAE, the sound by its own; each reward at what it scores."""
    both = combine([s.Brightness(), Top()], "weighted_sum", (1.0, 0.25))
    samples, pictures, report = run(BOTH, both)
    video, sound = samples["samples"].unbind()
    with torch.no_grad():
        clip = vm.ltx_vae().decode(video)[0]
    assert torch.equal(pictures, clip.clamp(0.0, 1.0))
    bright = float(pictures[places("evenly_spaced", len(pictures))].mean())
    waveform = vm.ltx_sound(sound)
    value = bright + 0.25 * float(waveform.max())
    assert report.best(0) == pytest.approx(value, abs=1e-4)
    parts = scored(report)[0]["parts"]
    assert {"brightness_frames", "loudness"} <= {*parts}


@pytest.mark.parametrize("kind", ["pictures", "frames", "sound"])
def test_each_half_can_be_searched_for_alone(kind):
    reward = {"pictures": s.Brightness(), "frames": FrameReward(s.Brightness(), "last"),
              "sound": Top()}[kind]  # fmt: skip
    given = {} if kind == "sound" else {"audio_vae": None}
    samples, pictures, report = run(BOTH, reward, **given)
    sound = samples["samples"].unbind()[-1]
    value = {
        "pictures": lambda: pictures[places("evenly_spaced", len(pictures))].mean(),
        "frames": lambda: pictures[-1].mean(),
        "sound": lambda: vm.ltx_sound(sound).max(),
    }[kind]()
    assert report.best(0) == pytest.approx(float(value), abs=1e-4)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: run(BOTH, Top(), audio_vae=None),
         "the VAE connected decodes pictures, and loudness can only score decoded.*audio_vae"),
        (lambda: run(BOTH, LatentReward("mean"), vae=None, audio_vae=None,
                     held_out={"reward0": Top()}),
         "no VAE is connected, and loudness can only"),
        (lambda: run(SOUND, s.Brightness()),
         "the VAE connected decodes sound, and brightness can only score decoded pictures.*CLAP"),
        (lambda: run(SOUND, FrameReward(s.Brightness())), "decodes sound, and brightness_frames"),
        (lambda: run(SOUND, combine([s.Brightness(), Top()], "weighted_sum")),
         "decodes sound, and combination can only score decoded pictures"),
        (lambda: run(SOUND, Top(), vae=s.pixel_vae()), "decodes pictures, and loudness can only"),
        (lambda: run(SOUND, LatentReward("mean"), vae=s.pixel_vae()),
         "which is sound, and the VAE connected to vae decodes single pictures"),
        (lambda: run(BOTH, Top(), samples=video_only()),
         "which is pictures without sound, and loudness can only score sound"),
    ],
)  # fmt: skip
def test_what_cannot_be_heard_or_seen_is_refused_before_anything_is_sampled(act, sentence):
    rows = s.count_rows(f.model(SOUND.name))
    with pytest.raises(ValueError, match=sentence):
        act()
    assert rows == []


def rescued():
    return {*Path(folder_paths.get_temp_directory()).glob("flowsearch_best*")}


def cancel(call):
    if call == 6:
        comfy.model_management.interrupt_current_processing(True)


def test_a_cancel_keeps_the_best_sound_as_a_file():
    before = rescued()
    with pytest.raises(InterruptProcessingException):
        run(SOUND, Loudness(act=cancel), evaluations=400)
    (saved,) = rescued() - before
    assert saved.suffix == ".flac"
    waveform, rate = torchaudio_load(saved)
    assert (rate, waveform.shape) == (44100, (2, 3 * 2048))
    assert float(waveform.std()) > 0.05


def torchaudio_load(path):
    """Read a sound as the host's Load Audio does."""
    from comfy_extras.nodes_audio import load

    return load(str(path))


def test_a_cancel_keeps_clip_and_sound():
    before = rescued()
    with pytest.raises(InterruptProcessingException):
        run(BOTH, Loudness(act=cancel), evaluations=400)
    assert sorted(path.suffix for path in rescued() - before) == [".flac", ".webp"]


def test_what_cannot_be_kept_does_not_hide_the_rest():
    """Of a batch, or of a clip and its sound, the one that fails is left out."""

    def torn():
        raise OSError("torn")

    clip = torch.zeros(1, 3, 8, 8, 3)
    names = show_rescued([torn, lambda: clip[0, 0], torn, lambda: clip], "cancelled")
    assert [Path(name).suffix for name in names] == [".png", ".webp"]


def test_a_sound_is_shown_as_its_waveform():
    """Silence, then a tone: a line, then from bottom to top."""
    quiet = torch.zeros(2, 1000)
    loud = torch.sin(torch.arange(1000) * 0.7).expand(2, -1)
    picture = strip(torch.cat([quiet, loud], dim=1))
    assert picture.shape == (*STRIP, 3)
    inked = (picture.mean(dim=-1) < 0.9).float().sum(dim=0)
    half = STRIP[1] // 2
    assert {1.0, 2.0} >= {*inked[: half - 1].tolist()}
    assert inked[half + 1 :].min() > 0.8 * STRIP[0]
    assert strip(torch.ones(1, 3)).shape == (*STRIP, 3)
    rows = Rows(torch.zeros(1, 64, 3), [], Decoders.of(vm.audio_vae()))
    rows.sound_at(0)
    assert rows.thumbnails()[0].shape == (*STRIP, 3)
    _, _, report = run(SOUND, Top())
    frames = [frame.picture for family in report.families.values() for frame in family]
    assert frames
    assert all(frame.shape[1] == 128 for frame in frames)
