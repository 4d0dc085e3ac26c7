"""VAEs of video and sound with random weights, small where the host's detection lets them be.

comfy.sd.VAE reads them from state dicts of the published layouts. Stable Audio's alone is as large
as the published one.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import comfy.ldm.audio.autoencoder
import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.nested_tensor
import comfy.sd
import families as f
import folder_paths
import safetensors.torch
import torch
from comfy.ldm.ace.vae.music_dcae_pipeline import MusicDCAE
from comfy.ldm.lightricks.vae.causal_audio_autoencoder import CausalAudioAutoencoder
from comfy.ldm.lightricks.vocoders.vocoder import Vocoder
from comfy.taesd.taehv import TAEHV
from comfy_extras.nodes_audio import VAEDecodeAudio
from comfy_extras.nodes_lt_audio import LTXVAudioVAEDecode, LTXVAudioVAELoader

WAN = f.BY_NAME["Wan 2.1, 2.2 14B"]


def seeded(module: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict under which values keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in module.state_dict().items():
        wide = value.ndim > 1 and not name.endswith("gamma")
        std = value[0].numel() ** -0.5 if wide else 0.1
        centre = 1.0 if name.endswith("gamma") else 0.0
        state[name] = torch.randn(value.shape, generator=generator) * std + centre
    return state


def _read(state: dict[str, torch.Tensor]) -> comfy.sd.VAE:
    """VAE of a state dict; nodes run it in inference mode, tests without, so it has no gradient."""
    vae = comfy.sd.VAE(sd=state)
    vae.first_stage_model.requires_grad_(False)
    return vae


def wan_vae_state(dim: int = 8) -> dict[str, torch.Tensor]:
    """What a file of Wan 2.1's VAE holds, with `dim` channels instead of 96."""
    network = comfy.ldm.wan.vae.WanVAE(
        dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], dropout=0.0,
    )  # fmt: skip
    return seeded(network)


def wan_state(text_dim: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What a file of Wan 2.1 holds, of one small layer that reads texts of a width; its metadata,
    which say that width where the host's detection asks for it."""
    network = comfy.ldm.wan.model.WanModel(
        model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, text_dim=text_dim,
        operations=torch.nn,
    )  # fmt: skip
    return seeded(network, 1), {"config": json.dumps({"transformer": {"text_dim": text_dim}})}


@cache
def wan_vae() -> comfy.sd.VAE:
    """VAE of Wan 2.1: T latent frames make 4 T - 3, eight times the side."""
    return _read(wan_vae_state())


def latent(
    rows: int = 1, frames: int = 3, side: int = 4, seed: int | None = None
) -> dict[str, Any]:
    """LATENT of Wan: zeros, or values."""
    shape = (rows, 16, frames, side, side)
    if seed is None:
        return {"samples": torch.zeros(shape)}
    return {"samples": torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


@cache
def audio_vae() -> comfy.sd.VAE:
    """VAE of Stable Audio: 2048 samples of two channels for each latent."""
    network = comfy.ldm.audio.autoencoder.AudioOobleckVAE()
    return _read(seeded(network))


def ace_vae() -> comfy.sd.VAE:
    """VAE of ACE-Step, as large as the published one, so it is not kept."""
    return _read(seeded(MusicDCAE(source_sample_rate=44100)))


LTX_AUDIO = {
    "audio_vae": {
        "model": {
            "params": {
                "sampling_rate": 16000,
                "ddconfig": {
                    "double_z": True, "mel_bins": 64, "z_channels": 8, "resolution": 64,
                    "downsample_time": False, "in_channels": 2, "out_ch": 2, "ch": 16,
                    "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [],
                    "dropout": 0.0, "mid_block_add_attention": False, "norm_type": "pixel",
                    "causality_axis": "height",
                },
            }
        }
    },
    "vocoder": {"upsample_initial_channel": 64},
}  # fmt: skip


@cache
def ltx_audio_vae() -> Any:
    """VAE of LTX 2's sound, at 16 kHz, with few channels, from a file by the host's own loader."""
    parts = {
        "audio_vae": CausalAudioAutoencoder(config=LTX_AUDIO["audio_vae"]),
        "vocoder": Vocoder(config=LTX_AUDIO["vocoder"]),
    }
    state = {f"{p}.{key}": v for p, part in parts.items() for key, v in seeded(part).items()}
    path = Path(folder_paths.get_folder_paths("checkpoints")[0]) / "ltx_audio.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, path, {"config": json.dumps(LTX_AUDIO)})
    return LTXVAudioVAELoader.execute(path.name)[0]


def ltx_sound(latents: torch.Tensor) -> torch.Tensor:
    """What the host's own nodes decode LTX 2's sound to."""
    vae, samples = ltx_audio_vae(), {"samples": latents}
    node = VAEDecodeAudio if isinstance(vae, comfy.sd.VAE) else LTXVAudioVAEDecode
    with torch.no_grad():
        return node.execute(samples=samples, **{node.define_schema().inputs[1].id: vae})[0][
            "waveform"
        ]


@cache
def ltx_vae() -> comfy.sd.VAE:
    """The small decoder of LTX 2's video: T latent frames make 8 T - 7, 32 times the side."""
    return _read(seeded(TAEHV(latent_channels=128)))


def ltx_latent(rows: int = 1) -> dict[str, Any]:
    """LATENT of LTX 2: two frames of video and a little sound."""
    parts = [torch.zeros(rows, 128, 2, 2, 2), torch.zeros(rows, 8, 6, 16)]
    return {"samples": comfy.nested_tensor.NestedTensor(parts)}
