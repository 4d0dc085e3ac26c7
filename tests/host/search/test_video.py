"""A search of clips: the reward sees what VAE Decode makes, frame by frame, and what is kept plays.

Wan of the host's own classes, small and with random weights, and its VAE with few channels.
"""

from pathlib import Path

import comfy.model_management
import comfy.sd
import families as f
import folder_paths
import host_models as hm
import nodes
import pytest
import searching as s
import torch
import video_models as vm
from comfy.model_management import InterruptProcessingException
from comfy.taesd.taehv import TAEHV
from comfy.taesd.taesd import TAESD
from PIL import Image

from flowsearch.nodes.host.search.views import Decoders, Rows
from flowsearch.nodes.rewards.frames import FrameRewardNode
from flowsearch.nodes.search.reward_search import SearchSamplerNode
from flowsearch.rewards.combination import combine
from flowsearch.rewards.frames import FrameReward, places
from flowsearch.rewards.latent import LatentReward
from flowsearch.samplers.search import DecodeError
from flowsearch.samplers.search.account import lineage

SIGMAS = torch.tensor([1.0, 0.8, 0.4, 0.0])
FRAMES = 9  # of three latent ones
SIDE = 32


def frame_reward(frames="evenly_spaced", aggregate="mean", inner=None, **rest):
    return FrameRewardNode.execute(
        inner or s.Brightness(), {"frames": frames, **rest}, aggregate
    ).result[0]


def run(reward, inner=None, rows=1, choice="rbf", **given):
    guider = hm.guider(f.model(vm.WAN.name), f.conditioning(vm.WAN))
    defaults = {"vae": vm.wan_vae(), "evaluations": 9, "sigmas": SIGMAS}
    return s.search(
        guider, inner or s.flow(), vm.latent(rows), reward=reward,
        strategy=s.strategy(choice, rows_per_call=given.pop("rows_per_call", 4)),
        **{**defaults, **given},
    )  # fmt: skip


def decoded(latent):
    """What the host's VAE Decode puts out."""
    return nodes.VAEDecode().decode(vm.wan_vae(), latent)[0]


def scored(report):
    return [row["scores"] for row in report.trace.record["evaluated"] if row["scores"]]


def test_the_small_vae_is_the_hosts_own():
    clips = vm.wan_vae().decode(vm.latent(2, seed=1)["samples"])
    assert clips.shape == (2, FRAMES, SIDE, SIDE, 3)
    assert 0.05 < float(clips.std()) < 0.5
    assert float((clips[:, 0] - clips[:, -1]).abs().mean()) > 0.01


@pytest.mark.parametrize(
    ("frames", "aggregate", "count"),
    [("evenly_spaced", "mean", 3), ("evenly_spaced", "min", 3), ("all", "max", 8),
     ("first", "mean", 8), ("last", "mean", 8)],
)  # fmt: skip
def test_the_value_is_that_of_the_frames_of_vae_decode(frames, aggregate, count):
    latent, pictures, report = run(frame_reward(frames, aggregate, count=count))
    host = decoded(latent)
    assert pictures.shape == host.shape == (FRAMES, SIDE, SIDE, 3)
    assert torch.equal(pictures, host)
    each = host.mean(dim=(1, 2, 3))[places(frames, FRAMES, count)]
    value = float({"mean": each.mean, "min": each.amin, "max": each.amax}[aggregate]())
    assert report.best(0) == pytest.approx(value, abs=1e-5)
    best = max(scored(report), key=lambda row: row["value"])
    assert len(best["parts"]) == len({*places(frames, FRAMES, count)})
    assert len({row["value"] for row in scored(report)}) > 3


def test_mean_and_min_look_for_other_clips():
    reports = [run(frame_reward("all", how))[2] for how in ("mean", "min", "max")]
    plain = [report.plain(0) for report in reports]
    assert plain[1] < plain[0] < plain[2]
    for report, how in zip(reports, (None, min, max), strict=True):
        for row in scored(report):
            parts = row["parts"].values()
            wanted = sum(parts) / FRAMES if how is None else how(parts)
            assert row["value"] == pytest.approx(wanted, abs=1e-6)


def test_a_reward_of_pictures_gets_the_defaults_and_the_report_says_so():
    latent, _, report = run(s.Brightness(), held_out={"reward0": s.Brightness(-1.0)})
    best = report.best(0)
    same = run(FrameReward(s.Brightness()))
    assert torch.equal(latent["samples"], same[0]["samples"])
    assert best == same[2].best(0)
    (note,) = [line for line in report.sentences() if "connect Frame Reward" in line]
    assert "brightness, brightness 2 scores pictures" in note
    assert "mean over 8 evenly spaced frames of a clip" in note
    assert not [line for line in same[2].sentences() if "connect Frame Reward" in line]
    for row in report.trace.record["finished"]:
        assert row["scores"]["held_out"]["brightness"] == pytest.approx(-row["scores"]["value"])


def test_one_frame_is_a_picture_as_it_was():
    """Wan makes pictures too: no frames in parts, the picture itself as the thumbnail."""
    still = {"samples": torch.zeros(1, 16, 1, 4, 4)}
    guider = hm.guider(f.model(vm.WAN.name), f.conditioning(vm.WAN))
    reward = s.Brightness()
    latent, picture, report = s.search(
        guider, s.flow(), still, vae=vm.wan_vae(), reward=reward, evaluations=9, sigmas=SIGMAS
    )
    assert picture.shape == (1, SIDE, SIDE, 3)
    assert torch.equal(picture, decoded(latent))
    assert report.best(0) == pytest.approx(float(picture.mean()), abs=1e-5)
    assert all(row["parts"] == {} for row in scored(report))
    assert all(shape[1:] == (SIDE, SIDE, 3) for shape in reward.shapes)
    assert not [line for line in report.sentences() if "connect Frame Reward" in line]
    guider = hm.guider(f.model(vm.WAN.name), f.conditioning(vm.WAN))
    _, _, clips = s.search(
        guider, s.flow(), still, vae=vm.wan_vae(), reward=frame_reward(), evaluations=9,
        sigmas=SIGMAS,
    )  # fmt: skip
    assert clips.best(0) == pytest.approx(report.best(0), abs=1e-6)
    assert all({*row["parts"]} == {"frame 0"} for row in scored(clips))


@pytest.mark.parametrize("choice", ["rbf", "best_of_n"])
def test_values_do_not_depend_on_the_rows_of_a_call(choice):
    inner = s.sampler() if choice == "best_of_n" else None
    one, four = (
        [row["value"] for row in scored(run(frame_reward(), inner, choice=choice, rows_per_call=n,
                                            evaluations=12)[2])]
        for n in (1, 4)
    )  # fmt: skip
    assert one == pytest.approx(four, abs=1e-4)
    assert len({round(value, 5) for value in one}) >= 3


def test_a_batch_of_clips_is_put_out_one_after_another():
    latent, pictures, report = run(frame_reward(), rows=2, evaluations=4)
    assert latent["samples"].shape == (2, 16, 3, 4, 4)
    assert pictures.shape == (2 * FRAMES, SIDE, SIDE, 3)
    for item in range(2):
        clip = pictures[item * FRAMES : (item + 1) * FRAMES]
        value = float(clip[places("evenly_spaced", FRAMES)].mean())
        assert report.best(item) == pytest.approx(value, abs=1e-5)


def test_clips_are_decoded_one_at_a_time_and_cancelled_in_between():
    """Four candidates of a call are four decodings, and cancel is looked for after each."""
    seen = []

    class Cancelling(type(vm.wan_vae())):
        def __init__(self):
            self.__dict__.update(vm.wan_vae().__dict__)

        def decode(self, latents):
            seen.append(len(latents))
            clips = super().decode(latents)
            if len(seen) == 4:
                comfy.model_management.interrupt_current_processing(True)
            return clips

    reward = s.Brightness()
    with pytest.raises(InterruptProcessingException):
        run(reward, vae=Cancelling(), evaluations=40)
    assert seen[:4] == [1] * 4
    assert len(reward.shapes) == 3, "what was decoded when cancel was pressed was still scored"


def rescued():
    return {*Path(folder_paths.get_temp_directory()).glob("flowsearch_best*")}


def cancel_at(call):
    def act(count):
        if count == call:
            comfy.model_management.interrupt_current_processing(True)

    return s.Calling(act)


def test_a_cancel_keeps_the_best_clip_as_something_that_plays():
    before = rescued()
    with pytest.raises(InterruptProcessingException):
        run(cancel_at(5), evaluations=400)
    (saved,) = rescued() - before
    assert saved.suffix == ".webp"
    with Image.open(saved) as clip:
        assert clip.n_frames == FRAMES
        assert clip.size == (SIDE, SIDE)


def test_a_clip_that_cannot_be_decoded_again_is_kept_as_its_picture():
    before = rescued()

    class Failing(type(vm.wan_vae())):
        def __init__(self):
            self.__dict__.update(vm.wan_vae().__dict__)
            self.calls = 0

        def decode(self, latents):
            self.calls += 1
            if self.calls > 4:
                raise OSError("torn")
            return super().decode(latents)

    with pytest.raises(DecodeError, match="torn"):
        run(frame_reward(), vae=Failing(), evaluations=40)
    (saved,) = rescued() - before
    assert saved.suffix == ".png"


def test_what_is_kept_of_a_clip_on_the_way_is_one_small_frame():
    latents = vm.latent(seed=1)["samples"]
    rows = Rows(latents, [], Decoders(vm.wan_vae()))
    assert rows.thumbnails() == [None]
    clips = rows.clips
    (picture,) = rows.thumbnails()
    assert torch.equal(picture, clips[0, FRAMES // 2])
    assert picture.untyped_storage().nbytes() == picture.numel() * 4, "it keeps the whole clip"
    _, _, report = run(frame_reward())
    frames = [frame.picture for family in report.families.values() for frame in family]
    assert frames
    assert all(max(frame.shape[:2]) <= lineage.SIDE and frame.ndim == 3 for frame in frames)


def test_unfinished_clips_are_shrunk_and_finished_ones_are_not():
    reward = s.Brightness()
    run(frame_reward(inner=reward), score_size=16)
    assert {shape[1:] for shape in reward.shapes} == {(16, 16, 3), (SIDE, SIDE, 3)}


def test_unfinished_clips_may_be_decoded_by_a_smaller_vae():
    """The small decoder's colours are not the VAE's: which one was used shows in the values."""
    small = comfy.sd.VAE(sd=vm.seeded(TAEHV(latent_channels=16)))
    latents = []

    class Keeping(LatentReward):
        def score(self, given):
            latents.extend(given.clone())
            return 0.0 * super().score(given)

    both = combine([s.Brightness(), Keeping("mean")], "weighted_sum", (1.0, 1.0))
    _, _, report = run(both, scoring_vae=small)
    rows = [row for row in report.trace.record["evaluated"] if row["scores"]]
    used, seen = places("evenly_spaced", FRAMES), set()
    with torch.no_grad():
        values = {
            name: [float(vae.decode(z[None])[0][used].clamp(0, 1).mean()) for z in latents]
            for name, vae in (("small", small), ("whole", vm.wan_vae()))
        }
    for row in rows:
        near = {
            name: min(abs(value - row["scores"]["value"]) for value in each) < 1e-5
            for name, each in values.items()
        }
        wanted = "whole" if row["sigma"] == 0.0 else "small"
        assert near[wanted], f"{row['sigma']}: {near}"
        seen.add(wanted)
    assert seen == {"small", "whole"}


def test_a_search_sampler_searches_clips():
    sampler = SearchSamplerNode.execute(
        sampler=s.flow(), vae=vm.wan_vae(), reward=frame_reward(), evaluations=9, target=s.NEVER,
    ).result[0]  # fmt: skip
    guider = hm.guider(f.model(vm.WAN.name), f.conditioning(vm.WAN))
    out, _ = hm.run(guider, sampler, SIGMAS, vm.latent(), seed=3)
    assert out.shape == (1, 16, 3, 4, 4)
    assert bool(out.isfinite().all())


def test_frames_and_latents_are_searched_for_together():
    both = combine([s.Brightness(), LatentReward("mean")], "weighted_sum", (1.0, 0.5))
    latent, pictures, report = run(both)
    bright = float(pictures[places("evenly_spaced", FRAMES)].mean())
    value = bright + 0.5 * float(latent["samples"].mean())
    assert report.best(0) == pytest.approx(value, abs=1e-4)


def test_a_vae_of_another_model_is_refused():
    class Flat(type(vm.wan_vae())):
        """Decodes the first frame only, as a VAE of pictures does."""

        def __init__(self):
            self.__dict__.update(vm.wan_vae().__dict__)

        def decode(self, latents):
            return super().decode(latents)[:, 0]

    with pytest.raises(DecodeError, match=r"into \(1, 32, 32, 3\); pictures are"):
        run(s.Brightness(), vae=Flat())


def still_vae():
    """A small decoder of single pictures with as many channels as Wan's latents."""
    return comfy.sd.VAE(sd=vm.seeded(TAESD(latent_channels=16)))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"reward": s.Brightness(), "scoring_vae": still_vae}, "connected to scoring_vae decodes"),
        # of a reward of latents the image output is decoded, at the end of all
        ({"reward": LatentReward("mean"), "vae": still_vae}, "connected to vae decodes single"),
    ],
)
def test_a_vae_that_cannot_decode_the_clips_is_refused_before_anything_is_sampled(given, sentence):
    made = {name: value() if callable(value) else value for name, value in given.items()}
    rows = s.count_rows(f.model(vm.WAN.name))
    with pytest.raises(ValueError, match=sentence):
        run(**made)
    assert rows == []


class Watched(type(vm.wan_vae())):
    """Wan's VAE, which counts and may fail."""

    def __init__(self, fails=False):
        self.__dict__.update(vm.wan_vae().__dict__)
        self.fails, self.calls = fails, 0

    def decode(self, latents):
        self.calls += 1
        if self.fails:
            raise OSError("torn")
        return super().decode(latents)


def test_held_out_rewards_of_several_things_share_what_is_decoded():
    """Each finished clip once, and once more for the output; a thumbnail, as for any other."""
    both = combine([s.Brightness(), LatentReward("mean")], "weighted_sum", (1.0, 0.5))
    held_out = {"reward0": both, "reward1": both}
    vae = Watched()
    _, pictures, report = run(LatentReward("mean"), vae=vae, held_out=held_out)
    finished = report.trace.record["finished"]
    assert vae.calls == len(finished) + 1
    assert any(frame for family in report.families.values() for frame in family)
    best = max((row["scores"] for row in finished), key=lambda scores: scores["value"])
    bright = float(pictures[places("evenly_spaced", FRAMES)].mean())
    assert best["held_out"]["combination"] == pytest.approx(bright + 0.5 * best["value"], abs=1e-4)
    with pytest.raises(DecodeError, match="torn"):
        run(LatentReward("mean"), vae=Watched(fails=True), held_out=held_out)
