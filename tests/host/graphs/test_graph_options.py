"""A server with other memory options than the default: the same picture, by sampler and search.

With --cpu the host takes neither --lowvram nor --novram, and does not start with
--enable-dynamic-vram; see test_graph_machine.py for what is asked of them without a server.
"""

import sys

from client import Client
from safetensors.torch import load_file

from devtools.server import running_host

TEXT = "three red circles and two blue squares"


def link(node: int, output: int = 0) -> list:
    return [str(node), output]


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


PROMPT = {
    "1": node("FlowSearchLoadDemo"),
    "2": node("CLIPTextEncode", clip=link(1, 1), text=TEXT),
    "3": node("CLIPTextEncode", clip=link(1, 1), text=""),
    "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "5": node("FlowSearchShapeCount", prompt=TEXT),
    "6": node(
        "FlowSearchRewardSearch", model=link(1), positive=link(2), negative=link(3),
        latent_image=link(4), vae=link(1, 2), reward=link(5), seed=5, steps=3, cfg=3.0,
        scheduler="simple", denoise=1.0, evaluations=12, target="never",
    ),
    "7": node("SaveLatent", samples=link(6), filename_prefix="options/search"),
    "8": node("KSamplerSelect", sampler_name="euler"),
    "9": node("FlowSearchStochasticSampler", transition="exact", interpolant="linear"),
    "10": node("BasicScheduler", model=link(1), scheduler="simple", steps=3, denoise=1.0),
    "11": node(
        "SamplerCustom", model=link(1), add_noise=True, noise_seed=1, cfg=3.0, positive=link(2),
        negative=link(3), sampler=link(9), sigmas=link(10), latent_image=link(4),
    ),
    "12": node("SaveLatent", samples=link(11), filename_prefix="options/sampler"),
}  # fmt: skip


def latents(client: Client) -> list:
    outputs = client.run(PROMPT)
    saved = [outputs[key]["latents"][0] for key in ("7", "12")]
    folder = client.server.base / "output"
    return [load_file(folder / f["subfolder"] / f["filename"])["latent_tensor"] for f in saved]


OPTIONS = ["--disable-dynamic-vram", "--disable-smart-memory", "--cache-none"]


def test_memory_options_change_no_picture(server, comfyui):
    with running_host(sys.executable, comfyui, options=OPTIONS) as running:
        found = latents(Client(running))
    for ours, usual in zip(found, latents(server), strict=True):
        assert ours.equal(usual)
