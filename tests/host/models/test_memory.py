"""Memory: a search that loses its model at every moment is the same search; cheap decoders."""

import contextlib
import shutil

import comfy.latent_formats
import comfy.model_management
import folder_paths
import host_models as hm
import pytest
import searching as s
import torch
from nodes import VAELoader
from real_weights import real

from flowsearch.nodes.host.search import judge


def evict():
    """What another model's loading does when memory is short."""
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device())


class EvictingVAE:
    """The pixel VAE, which pushes everything out of memory."""

    def __init__(self):
        self.vae = s.pixel_vae()

    def decode(self, latents):
        evict()
        return self.vae.decode(latents)


class Halved(torch.nn.Module):
    """Network that predicts something else; put in place of the model's by an object patch."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.dtype = network.dtype

    def forward(self, x, *args, **kwargs):
        return 0.5 * self.network(x, *args, **kwargs)


def patched_model():
    """MODEL with an object patch, which an eviction from memory takes back, silently."""
    model = hm.scene_model().clone()
    model.add_object_patch("diffusion_model", Halved(model.model.diffusion_model))
    return model


STRATEGIES = ("evolutionary", "rbf", "best_of_n", "svdd", "code", "smc", "search_over_paths",
              "zero_order")  # fmt: skip


def found(name, disturbed):
    given = {"strategy": s.strategy(name, rows_per_call=2), "evaluations": 24}
    if disturbed:
        given |= {"vae": EvictingVAE(), "reward": s.Calling(lambda _: evict())}
    latent, image, report = s.reward_search(patched_model(), **given)
    scores = [row["scores"]["value"] for row in report.trace.record["finished"]]
    return latent["samples"], image, scores


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_picture_is_the_same_when_all_is_evicted_at_every_decode_and_score(name):
    calm, disturbed = found(name, False), found(name, True)
    assert torch.equal(calm[0], disturbed[0])
    assert torch.equal(calm[1], disturbed[1])
    assert calm[2] == disturbed[2]


def test_it_would_not_be_if_the_models_were_not_loaded_again(monkeypatch):
    monkeypatch.setattr(judge, "models_kept", lambda memory: contextlib.nullcontext())
    assert not torch.equal(found("evolutionary", False)[0], found("evolutionary", True)[0])


@pytest.fixture
def taef2(monkeypatch, tmp_path):
    """The host's own TAEF2, from the published files, by its Load VAE node."""
    if "taef2" not in VAELoader.image_taes:
        pytest.skip("this ComfyUI knows no TAEF2")
    for part in ("encoder", "decoder"):
        shutil.copy(real(f"taef2_{part}.pth"), tmp_path)
    paths = ([str(tmp_path)], folder_paths.folder_names_and_paths["vae_approx"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", paths)
    return VAELoader().load_vae("taef2")[0]


def test_taef2_scores_what_is_unfinished_of_a_flux_2_latent(taef2):
    """128 channels of 16 x 16 pixels each; pictures of 64 pixels, shrunk to 32 for the reward."""
    model = hm.gaussian_model("FLUX", mean=0.0, std=1.0)
    model.model.latent_format = comfy.latent_formats.Flux2()
    latent = hm.empty_latent(size=4, channels=128)
    reward = s.Brightness()
    out, image, report = s.reward_search(
        model, latent, vae=taef2, scoring_vae=taef2, score_size=32, reward=reward, evaluations=24
    )
    assert out["samples"].shape == (1, 128, 4, 4)
    assert image.shape == (1, 64, 64, 3)
    assert {shape[1:3] for shape in reward.shapes} == {(64, 64), (32, 32)}
    assert bool(image.isfinite().all())
    assert report.best(0) == pytest.approx(float(image.detach().mean()), abs=1e-5)
