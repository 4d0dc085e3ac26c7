"""What differs between the versions of the host that the pack runs in, and nothing else.

The rest of the pack asks here and never looks at a version. What is asked for is looked for itself,
so that a host between two releases is no case of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.model_management as management
import comfy.sample
import torch
from comfy_api.latest import io
from torch import Tensor

__all__ = [
    "CURVE_KINDS",
    "HOST_CURVES",
    "curve_input",
    "decoded_sound",
    "device_context",
    "empty_for",
    "is_oom",
    "shows_results",
    "those_known",
    "training",
]


def those_known(module: str, *names: str) -> tuple[type, ...]:
    """Return those of some classes that this host has.

    Args:
        module: Name of a module of the host.
        *names: Names of classes in it.

    Returns:
        The classes, in that order, for isinstance(); none where there is no such module.
    """
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if not module.startswith(missing.name or "\0"):  # it is there and lacks another one
            raise
        return ()
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


# before 0.19 wires of curves carry bare points
HOST_CURVES: tuple[Any, ...] = those_known("comfy_api.input", "CurveInput")
CURVE_KINDS: dict[type, str] = {
    kind: interpolation
    for name, interpolation in (("LinearCurve", "linear"), ("MonotoneCubicCurve", "monotone_cubic"))
    for kind in those_known("comfy_api.input", name)
}


def curve_input(name: str, points: Sequence[tuple[float, float]], tooltip: str) -> io.Curve.Input:
    """Describe a CURVE input with an editor.

    Args:
        name: Its id.
        points: Its default.
        tooltip: Its tooltip.

    Returns:
        The input. Hosts before 0.19 send the default as bare points, at which their own page fails
        ("points is not iterable"), so there it is what the page reads.
    """
    made: Any = io.Curve.Input(name, default=list(points), tooltip=tooltip, socketless=False)
    if not isinstance(made.as_dict()["default"], dict):
        pairs = [list(point) for point in points]
        made.default = {"points": pairs, "interpolation": "monotone_cubic"}
    return made


def decoded_sound(vae: Any, latents: Tensor) -> tuple[Tensor, int]:
    """Decode latents of sound as the host's VAE Decode Audio does, loudness and all.

    Args:
        vae: VAE. That of LTX 2 is no VAE of the host's own class before 0.20, so VAE Decode Audio
            cannot take it: it is decoded as LTXV Audio VAE Decode does there.
        latents: Of sound.

    Returns:
        Waveforms (B, channels, samples), and their samples a second.
    """
    if hasattr(vae, "output_sample_rate"):
        return vae.decode(latents).to(latents.device), int(vae.output_sample_rate)
    from comfy_extras.nodes_audio import VAEDecodeAudio  # brings libraries that pictures do without

    made: Any = VAEDecodeAudio.execute(vae, {"samples": latents})
    return made[0]["waveform"], int(made[0]["sample_rate"])


def shows_results() -> dict[str, Any]:
    """Say that a node shows something although nothing needs to come after it.

    Returns:
        For its io.Schema. Hosts that know it (from 0.20) show it again where the node is cached.
    """
    known = "has_intermediate_output" in inspect.signature(io.Schema).parameters
    return {"has_intermediate_output": True} if known else {}


def is_oom(error: BaseException) -> bool:
    """Say whether the host knows an exception as one of full memory.

    Args:
        error: Any exception.

    Returns:
        Whether it is. Hosts that cannot tell know torch's own only.
    """
    asked = getattr(management, "is_oom", None)
    return bool(asked(error)) if asked else isinstance(error, torch.cuda.OutOfMemoryError)


def device_context(device: torch.device) -> AbstractContextManager[None]:
    """Make a device the current one, as the host does around its models.

    Args:
        device: Where the model is.

    Returns:
        The host's context; nothing in hosts that use one device only (before 0.21).
    """
    enter = getattr(management, "cuda_device_context", None)
    return enter(device) if enter else nullcontext()


@contextmanager
def training() -> Iterator[None]:
    """Let the host's networks leave out what has no backward pass, as its training node does.

    One thread at a time; see differentiated().

    Yields:
        Nothing. Hosts before its kernels of its own have no such switch, and need none.
    """
    before = getattr(management, "in_training", None)
    if before is None:
        yield
        return
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before


def empty_for(model: Any, latent: dict[str, Any]) -> Tensor:
    """Shape a latent for a model, as the host's sampling nodes do: an empty one gets its channels.

    Args:
        model: MODEL.
        latent: LATENT. The ratios of an empty one are those that this host's own nodes wrote, so a
            host that does not know the temporal one (before 0.21) is not asked about it.

    Returns:
        Samples.
    """
    names = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    ratios = {name: latent[name] for name in names if latent.get(name) is not None}
    return comfy.sample.fix_empty_latent_channels(model, latent["samples"], **ratios)
