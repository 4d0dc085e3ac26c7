"""How is a model asked for a likelihood inside the host, and what is said of the answer?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ....samplers.paths.interpolant import VE, r_from_sigma, sigma_from_r
from ....samplers.stepping.noise import keyed_normal
from ....samplers.study import likelihood as estimates
from .field import Field, coordinates_of, run_field
from .guidance import require_undistilled, require_unguided

__all__ = ["METHODS", "Question", "colours", "estimate"]

METHODS: dict[str, Callable[..., estimates.Likelihood]] = {
    "forward": estimates.forward,
    "ode": estimates.ode,
}
NOISE, DEQUANTISATION = 21, 22  # purposes of a draw
LEVEL = 2.0 / 255.0  # distance of 256 levels from -1 to 1
_PIXELS = (
    "The pictures were rounded to 256 levels from -1 to 1 and dequantised with uniform noise of "
    "one level (2/255), so the figure holds log2(127.5) = 6.994 bits beyond the density's own."
)
_LATENTS = (
    "This is a density of the model's latents, which have no levels: it depends on their scale, "
    "may be negative, and compares only what one model says."
)
# viridis at 0, 1/4, 1/2, 3/4, 1
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


@dataclass(frozen=True)
class Question:
    """What is asked of the model.

    Attributes:
        method: Key of METHODS.
        nodes: Log SNR nodes, or steps of the ODE.
        noises: Noises a node, or probes of the ODE.
        seed: Of noises, probes and dequantisation; the same for every row.
        low: Lowest log SNR wanted.
        high: Highest.
    """

    method: str
    nodes: int
    noises: int
    seed: int
    low: float
    high: float

    def rule(self, model_sampling: Any) -> list[estimates.Node]:
        """Place the nodes inside the model's own range.

        Args:
            model_sampling: The host's description of the model's path.

        Returns:
            Nodes by rising log SNR.

        Raises:
            ValueError: Nothing of the range is the model's.
        """
        low, high = self.low, self.high
        if coordinates_of(model_sampling) is VE:
            bounds = float(model_sampling.sigma_max), float(model_sampling.sigma_min)
            ends = [estimates.log_snr_of(sigma_from_r(VE, sigma)) for sigma in bounds]
            low, high = max(low, ends[0]), min(high, ends[1])
        if not low < high:
            raise ValueError(
                f"the log SNRs from {self.low:g} to {self.high:g} are none of this model's; "
                "log_snr_low must be below log_snr_high, and -6 to 14 suits all models"
            )
        return estimates.midpoint(self.nodes, low, high)

    def draw(self, like: Tensor) -> Callable[[int, int], Tensor]:
        """Return the noise of a node, which is the same for all rows of a batch."""
        return lambda node, noise: keyed_normal(like.shape[1:], self.seed, node, noise, NOISE)

    def data(self, field: Field) -> tuple[Tensor, float]:
        """Return the latent in the model's space, dequantised where it is pixels.

        Args:
            field: The run.

        Returns:
            x, and the width of its bins: 1 for latents of a VAE, which have none.
        """
        latent = field.latent.float()
        if not is_pixels(field.guider.inner_model.latent_format):
            return latent, 1.0
        levels = latent.clamp(-1.0, 1.0).add(1.0).div(LEVEL).round().mul(LEVEL).sub(1.0)
        normal = keyed_normal(latent.shape[1:], self.seed, DEQUANTISATION).to(latent)
        return levels + LEVEL * (torch.special.ndtr(normal) - 0.5), LEVEL

    def ask(self, field: Field, rule: list[estimates.Node]) -> tuple[estimates.Likelihood, float]:
        """Answer inside a guider's run.

        Args:
            field: The run.
            rule: Nodes.

        Returns:
            The estimate, and the width of the data's bins.
        """
        require_undistilled(field.guider)
        x, width = self.data(field)
        calls = len(rule) * (2 * self.noises if self.method == "forward" else 2 + 2 * self.noises)
        bar = comfy.utils.ProgressBar(calls)

        def predict(state: Tensor, sigma: float) -> Tensor:
            denoised = field.predict_linear(state, sigma)
            bar.update(1)
            return denoised

        draw, scale = self.draw(x), field.noise_scale
        return METHODS[self.method](predict, x, rule, draw, self.noises, scale), width


def is_pixels(latent_format: Any) -> bool:
    """Whether a model works on pixels, -1 to 1, rather than on the latents of a VAE."""
    return latent_format.spacial_downscale_ratio == 1 and latent_format.latent_channels == 3


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said.

    Attributes:
        found: The estimate.
        width: Width of the data's bins; 1 for none.
        rule: The nodes used.
    """

    found: estimates.Likelihood
    width: float
    rule: list[estimates.Node]

    @property
    def dimensions(self) -> int:
        """Numbers in one picture."""
        return self.found.map[0].numel()

    @property
    def bits(self) -> list[float]:
        """Bits per dimension of each picture."""
        found = self.found.nats
        return estimates.bits_per_dimension(found, self.dimensions, self.width).tolist()

    @property
    def errors(self) -> list[float]:
        """Their standard errors."""
        return (self.found.error / (self.dimensions * math.log(2.0))).tolist()

    def surprise(self) -> tuple[Tensor, tuple[float, float]]:
        """Reduce the map to bits per dimension by place, on one scale for the whole batch.

        Returns:
            Bits, shape (frames, H, W), and their 1st and 99th percentile.
        """
        bits = estimates.bits_per_dimension(self.found.map.mean(1), 1, self.width).float().cpu()
        frames = bits.reshape(-1, *bits.shape[-2:]) if bits.ndim > 2 else bits[:, None]
        ordered = frames.flatten().sort().values
        low, high = (float(ordered[round(p * (len(ordered) - 1))]) for p in (0.01, 0.99))
        return frames, (low, high)

    def text(self, question: Question, scale: tuple[float, float]) -> str:
        """Say everything in words, a line a picture and the rest below.

        Args:
            question: What was asked.
            scale: Bits per dimension at the dark and the bright end of the map.

        Returns:
            The text.
        """
        pixels = self.width != 1.0
        unit = "bits per dimension" if pixels else "bits per latent dimension"
        nats, beyond = self.found.nats.tolist(), self.found.beyond.tolist()
        rows = zip(self.bits, self.errors, nats, beyond, strict=True)
        lines = [
            f"{index}: {bits:.4f} {unit}, standard error {error:.4f}; {total:.1f} nats, "
            f"{total - above:.1f} without what is extrapolated above the range"
            for index, (bits, error, total, above) in enumerate(rows)
        ]
        lines += [self._how(question), _PIXELS if pixels else _LATENTS]
        lines.append(f"Map: {scale[0]:.2f} (dark) to {scale[1]:.2f} (bright) {unit}.")
        return "\n".join(lines)

    def _how(self, question: Question) -> str:
        rule, shape = self.rule, " x ".join(str(n) for n in self.found.map.shape[1:])
        low = rule[0].log_snr - rule[0].weight / 2
        high = rule[-1].log_snr + rule[-1].weight / 2
        kind = {"forward": "noises, each with both signs", "ode": "probes"}[question.method]
        text = (
            f"-log p of {shape} = {self.dimensions} dimensions; lower is more probable. Method "
            f"{question.method}: {len(rule)} nodes, log SNR {low:.4g} to {high:.4g}, "
            f"{question.noises} {kind}, seed {question.seed}, {self.found.evaluations} evaluations "
            "a picture."
        )
        if abs(low - question.low) + abs(high - question.high) > 1e-6:
            text += f" (Asked for {question.low:g} to {question.high:g}; the model ends there.)"
        return text


def estimate(
    guider: comfy.samplers.CFGGuider, latent: dict[str, Any], question: Question
) -> Answer:
    """Run a question inside a guider.

    Args:
        guider: GUIDER.
        latent: LATENT.
        question: What is asked.

    Returns:
        The answer.

    Raises:
        ValueError: Guidance, a mask, a model that cannot be asked, or one that says nan.
    """
    require_unguided(guider)
    if latent.get("noise_mask") is not None:
        raise ValueError(
            "the latent has a noise mask, and a likelihood is that of the whole picture; connect "
            "the latent from before Set Latent Noise Mask"
        )
    sampling: Any = guider.model_patcher.get_model_object("model_sampling")
    path, rule = coordinates_of(sampling), question.rule(sampling)
    scale = float(getattr(sampling, "noise_scale", 1.0))
    levels = [estimates.sigma_at(node.log_snr, scale) for node in rule]
    sigmas = torch.tensor([*(r_from_sigma(path, s) for s in levels), 0.0])
    answers: list[Answer] = []

    def body(field: Field) -> Tensor:
        found, width = question.ask(field, rule)
        answers.append(Answer(found, width, rule))
        return field.latent

    run_field(guider, latent, sigmas, body, question.seed)
    if not answers[0].found.nats.isfinite().all():
        raise ValueError(
            "the model's predictions are not finite, so there is no likelihood; try the model in "
            "another precision, or a lower log_snr_high"
        )
    return answers[0]


def colours(values: Tensor, scale: tuple[float, float], magnify: int = 1) -> Tensor:
    """Colour a map from dark blue over green to yellow.

    Args:
        values: Shape (frames, H, W).
        scale: Values of the ramp's ends.
        magnify: Pixels a value.

    Returns:
        IMAGE, shape (frames, magnify H, magnify W, 3).
    """
    ramp = torch.tensor(_RAMP, dtype=torch.float32) / 255.0
    low, high = scale
    place = ((values - low) / max(high - low, 1e-12)).clamp(0.0, 1.0) * (len(_RAMP) - 1)
    index = place.floor().clamp(max=len(_RAMP) - 2).long()
    share = (place - index)[..., None]
    image = ramp[index] * (1.0 - share) + ramp[index + 1] * share
    return image.repeat_interleave(magnify, 1).repeat_interleave(magnify, 2)
