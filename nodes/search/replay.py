"""The Search Replay node: a winner's path as NOISE, SIGMAS, LATENT, and as a SAMPLER."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...samplers.paths.interpolant import r_from_sigma, sigma_from_r
from ...samplers.search.engine.memory import moved
from ...samplers.search.protocol import State
from ...samplers.stepping.noise import keyed_normal
from ...samplers.stepping.transition import ODE
from ..host.model.field import Field, FieldSampler
from ..host.model.flow_sampler import STEP, source_of
from ..host.model.history import sigmas_with
from ..host.model.randomness import begin_as_the_host
from ..host.search.forms import SeededNoise
from ..host.search.outcome import Report
from ..host.search.path import WinnerPath
from ..sockets import CATEGORY_SEARCH, FlowReport

__all__ = ["NODES", "PathSampler", "RecordedNoise", "Replay", "path_of"]


class RecordedNoise:
    """The host's NOISE that gives a recorded one; for a LATENT of another size, the seed's."""

    def __init__(self, noise: Any, seed: int) -> None:
        """Keep the noise.

        Args:
            noise: One row, as LATENT holds it.
            seed: The host's seed; also what a stock sampler draws its own noise from.
        """
        self._noise = noise
        self.seed = seed

    def generate_noise(self, latent: dict[str, Any]) -> Any:
        """Return the noise for a LATENT.

        Args:
            latent: Samples; one row like the recorded one for a replay.

        Returns:
            Noise like the samples.
        """
        if _shapes(latent["samples"]) == _shapes(self._noise):
            begin_as_the_host(self._noise, self.seed)
            return self._noise.to("cpu", copy=True)
        return SeededNoise(self.seed).generate_noise(latent)


def _shapes(samples: Any) -> list[tuple[int, ...]]:
    """Shapes of one latent, or of the several that are sampled together."""
    return [tuple(t.shape) for t in (samples.unbind() if samples.is_nested else [samples])]


@dataclass(frozen=True, eq=False)
class PathSampler(FieldSampler):
    """A SAMPLER that takes a recorded path's steps, each with its transition and its noise.

    Attributes:
        path: The path.
        first: The point where it begins.
    """

    path: WinnerPath
    first: int

    def run(self, field: Field) -> Tensor:
        """Sample; steps beyond the recorded ones are ODE steps.

        Args:
            field: The run.

        Returns:
            The samples.
        """
        path, sigmas = field.coordinates, [float(s) for s in field.sigmas.cpu()]
        x = field.start(self.max_denoise(field.guider, field.sigmas))
        state = self._remembered(x)
        with field.watched(len(sigmas) - 1) as tell:
            for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
                state = {**state, "x": x, "denoised": self._predict(field, x, sigma)}
                tell(i, x, state["denoised"])
                ends = [sigma_from_r(path, s) for s in (sigma, sigma_next)]
                own = dict(zip(ends, (sigma, sigma_next), strict=True))
                state = self._step(field, state, i, ends, own)
                x = state["x"]
        return field.finish(x)

    def _predict(self, field: Field, x: Tensor, sigma: float) -> Tensor:
        """Predict with the sigmas that the search showed: patches read their step off them."""
        if self.path.schedule:
            shown = sigmas_with(field.sigmas.new_tensor(self.path.schedule), sigma)
            field.show_sigmas(shown)
        return field.predict(x, sigma)

    def _remembered(self, x: Tensor) -> State:
        """What a method with memory knows at the first point, if the states have its size."""
        past = self.path.points[self.first].past
        same = all(t.shape[1:] == x.shape[1:] for t in past.values() if t.ndim == x.ndim)
        if not same or len(x) != 1:
            return {}
        return {key: t.to(x.device) if t.ndim == x.ndim else t for key, t in past.items()}

    def _step(
        self, field: Field, state: State, number: int, ends: list[float], own: dict[float, float]
    ) -> State:
        steps = self.path.steps[self.first :]
        step = steps[number] if number < len(steps) else None

        def draw() -> Tensor:
            key = (*self.path.row_key, *(step.key if step else (number,)))
            x = state["x"]
            # the first row is the winner; others of a larger batch get noise of their own
            keys = [(*key, row, STEP) if row else (*key, STEP) for row in range(len(x))]
            rows = [keyed_normal(x.shape[1:], *key) for key in keys]
            return torch.stack(rows).to(x) * field.noise_scale

        def predict(rows: list[int], x: Tensor, sigma: float) -> Tensor:
            del rows  # all of them: they have the same past
            return self._predict(field, x, sigma)

        def own_sigma(sigma: float) -> float:
            return own[sigma] if sigma in own else r_from_sigma(field.coordinates, sigma)

        transition = step.transition if step else ODE
        path = field.coordinates
        source = source_of(field, self.path.gradients, transition)
        out = moved(state, ends[0], ends[1], transition, draw, predict, path, own_sigma, source)
        return {key: value for key, value in out.items() if key != "evaluations"}


def path_of(report: Report, index: int) -> WinnerPath:
    """Return the path of a row of a search's output.

    Args:
        report: FLOW_REPORT.
        index: The row.

    Returns:
        The path.

    Raises:
        ValueError: There is no such row, or its path was not kept.
    """
    if not 0 <= index < len(report.paths):
        raise ValueError(
            f"index is {index}, but the search put out {len(report.paths)} pictures, counted from "
            "0; choose one of them, or raise top_k"
        )
    path = report.paths[index]
    if path is None:
        raise ValueError(
            f"the path of picture {index} is not known, because the search was taken up from a "
            "checkpoint that did not hold it; search again with another seed"
        )
    return path


class Replay(io.ComfyNode):
    """A winner's path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchReplay",
            display_name="Search Replay",
            category=CATEGORY_SEARCH,
            description=(
                "Gives back how a search came to a picture, from any noise level on: for another "
                "prompt or guidance from there, for a larger pass, or to get the picture again. "
                "With SamplerCustomAdvanced and the same guider the picture comes out again."
            ),
            search_aliases=["winner", "path", "reproduce", "refine", "hires", "seed of the winner"],
            inputs=[
                FlowReport.Input("report", tooltip="The report output of a search node."),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip=(
                        "Which picture of the search's output, counted from 0: the best of the "
                        "first batch row. Higher: runners-up and further rows."
                    ),
                ),
                io.Float.Input(
                    "sigma",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip=(
                        "Noise level to start from, on the linear path: the first state of the "
                        "path at or below it. 1: all that is known of the path; near 0: its last "
                        "step, when the picture is almost done."
                    ),
                ),
            ],
            outputs=[
                io.Noise.Output(id="noise", tooltip="The noise in the state, with its seed."),
                io.Sigmas.Output(id="sigmas", tooltip="The rest of the winner's own sigmas."),
                io.Latent.Output(
                    id="latent", tooltip="What the model predicted there, with the noise mask."
                ),
                io.Sampler.Output(
                    id="sampler",
                    tooltip=(
                        "The winner's own steps, fresh noise included. Where they were ODE steps, "
                        "euler does the same."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, report: Report, index: int, sigma: float) -> io.NodeOutput:
        """Give the path.

        Args:
            report: FLOW_REPORT.
            index: Row of the search's output.
            sigma: Linear sigma.

        Returns:
            NOISE, SIGMAS, LATENT, SAMPLER.
        """
        path = path_of(report, index)
        first = path.place(sigma)
        point = path.points[first]
        latent = {"samples": point.latent}
        if path.mask is not None:
            latent["noise_mask"] = path.mask
        sigmas = torch.tensor(path.sigmas[first:], dtype=torch.float32)
        sampler = path.sampler or PathSampler(path, first)
        return io.NodeOutput(RecordedNoise(point.noise, path.seed), sigmas, latent, sampler)


NODES = [Replay]
