"""What the host's own sampling nodes do around a SAMPLER, for the search's: LATENT to LATENT."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..model.field import fitting_samples
from ..page.card import card_output, draw_card
from ..page.progress import logged, say
from ..page.text import for_page
from .judge import Judge
from .outcome import Report
from .search_sampler import SearchSampler
from .summary import captions, last_words, summary
from .views import decoded

Conditioning = list[list[Any]]

__all__ = ["Conditioning", "Noise", "SeededNoise", "cfg_guider", "ksampler_sigmas", "search_latent"]

_LOG = logging.getLogger("flowsearch")

NO_PICTURES = (
    "the search has no pictures to put out, because no VAE is connected to it; connect one, or "
    "decode its latent with VAE Decode"
)
SOUND = (
    "the search has no pictures to put out, because its VAE decodes the latents to something else; "
    "decode its latent with the node for it, such as VAE Decode Audio"
)


class Noise(Protocol):
    """The host's NOISE."""

    seed: int

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        """Draw the initial noise of a LATENT."""
        ...


class SeededNoise:
    """The host's NOISE of a seed, as KSampler draws it."""

    def __init__(self, seed: int) -> None:
        """Keep the seed.

        Args:
            seed: Any seed of the host.
        """
        self.seed = seed

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        """Draw the initial noise of a LATENT.

        Args:
            latent: Samples, and batch_index perhaps.

        Returns:
            Noise like the samples.
        """
        samples = latent["samples"]
        noise: Any = comfy.sample.prepare_noise(samples, self.seed, latent.get("batch_index"))
        return noise


def cfg_guider(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float
) -> CFGGuider:
    """Return the guider that KSampler uses."""
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def ksampler_sigmas(model: ModelPatcher, scheduler: str, steps: int, denoise: float) -> Tensor:
    """Return the sigmas that KSampler uses with the sampler euler."""
    sampler = comfy.samplers.KSampler(
        model, steps, model.load_device, "euler", scheduler, denoise, model.model_options
    )
    return sampler.sigmas


def search_latent(
    guider: CFGGuider,
    noise: Noise,
    sigmas: Tensor,
    latent: dict[str, Any],
    search: SearchSampler,
    hidden: io.HiddenHolder | None = None,
) -> io.NodeOutput:
    """Run a search as SamplerCustomAdvanced runs a SAMPLER.

    Args:
        guider: GUIDER.
        noise: NOISE.
        sigmas: SIGMAS.
        latent: LATENT.
        search: The search.
        hidden: The node's own, with extra_pnginfo; None outside of a workflow.

    Returns:
        LATENT, IMAGE, FLOW_REPORT and a FLOAT list of scores, top_k rows an item, best first; and
        what the node shows. Without a VAE the IMAGE is what makes the host refuse its use, and
        nothing else.

    Raises:
        ValueError: Nothing to sample, or latents that the VAE does not decode.
    """
    samples = latent["samples"]
    if len(sigmas) < 2:
        raise ValueError(
            "there are no steps to search, because sigmas holds fewer than two values (with "
            "denoise 0 there are none); raise denoise or the steps"
        )
    samples = fitting_samples(guider.model_patcher, latent, nested=True)
    out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    out["samples"] = samples
    reports: list[Report] = []
    say("preparing the model and the prompt")
    found = guider.sample(
        noise.generate_noise(out),
        samples,
        replace(search, keep=reports.append, info=hidden and hidden.extra_pnginfo),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        seed=noise.seed,
    )
    if not reports:
        raise ValueError(
            f"the guider ({type(guider).__name__}) returned latents without running the search: it "
            "samples in a way of its own; connect another one, such as CFGGuider"
        )
    out = _with_rows(out, found.to(comfy.model_management.intermediate_device()))
    pictures, report = _pictures(search.judge, out["samples"]), _of_pieces(reports)
    shows: dict[str, Any] | None = None
    with logged():
        shows = search_output(report, pictures, captions(report) if len(reports) == 1 else [])
    scores = [score for each in reports for score in each.scores]
    return io.NodeOutput(out, pictures, report, scores, ui=shows)


def _of_pieces(reports: Sequence[Report]) -> Report:
    """The report; of a guider that samples in pieces the first one, which says so."""
    report, count = reports[0], len(reports)
    if count == 1:
        return report
    said = (
        f"the guider ran the search {count} times, on pieces of the latent: this report and Search "
        f"Replay are of the first piece, and the scores that come out are those of all {count} "
        "pieces in order, not of the whole picture; Score Images scores that"
    )
    return replace(report, notes=[*report.notes, said])


def search_output(
    report: Report, pictures: Tensor | ExecutionBlocker, scores: Sequence[str]
) -> dict[str, Any]:
    """What the node goes on showing: the pictures, of clips the middle one, and the last word."""
    lines = last_words(report)
    rows = [] if isinstance(pictures, ExecutionBlocker) else [*pictures]
    frames = max(1, len(rows) // max(1, len(scores)))
    texts = scores if len(scores) > 1 else []
    drawn = draw_card(lines, rows[frames // 2 :: frames], texts)
    return card_output(lines, summary(report), drawn)


def _pictures(judge: Judge, samples: Any) -> Tensor | ExecutionBlocker:
    """What the IMAGE output holds."""
    vae = judge.decoders.pictures
    if vae is None:
        return ExecutionBlocker(for_page(NO_PICTURES if judge.decoders.sound is None else SOUND))
    try:
        return decoded(vae, samples)
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:  # noqa: BLE001 - said to whoever uses the pictures
        # the search is done: its latent and its report come out whatever its VAE does
        _LOG.warning("search: the IMAGE output is left out, because %s", error)
        why = f"the search has a latent and a report but no pictures to put out, because {error}"
        return ExecutionBlocker(for_page(why))


def _with_rows(latent: dict[str, Any], found: Tensor) -> dict[str, Any]:
    """Put found rows into a LATENT; what belonged to its old rows is repeated or dropped."""
    rows = latent["samples"].shape[0]
    out = {**latent, "samples": found}
    if found.shape[0] == rows:
        return out
    each, rest = divmod(found.shape[0], rows)
    out.pop("batch_index", None)
    mask: Any = out.get("noise_mask")
    if mask is not None and mask.shape[0] > 1:
        out.pop("noise_mask")
        if isinstance(mask, Tensor) and not rest and mask.shape[0] == rows:
            out["noise_mask"] = torch.repeat_interleave(mask, each, dim=0)
    return out
