"""Nodes of the stochastic sampler: sigmas, noise law, sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...samplers.paths import noise_law as laws
from ...samplers.paths.interpolant import INTERPOLANTS
from ...samplers.stepping.transition import LAST_STEPS, METHODS, ODE, Transition
from ..host.model.flow_sampler import DEFAULT_LAW, FlowSampler
from ..host.model.schedule import schedule
from ..host.search.gradients import RewardGuidance
from ..sockets import CATEGORY_SAMPLING, FlowGuidance, FlowNoiseLaw
from .curve import drawn_law, drawn_path, law_curve_input, path_inputs

__all__ = ["NODES", "NoiseLaw", "Sigmas", "StochasticSampler"]

CURVE = {"k_at_0": 0.0, "k_at_25": 0.25, "k_at_50": 0.5, "k_at_75": 0.75, "k_at_100": 1.0}
STRENGTH = replace(
    laws.NOISE_LAWS["constant_k"].parameters["k"],
    meaning="strength k at the curve's top; 0 is the ODE, 1 the DDPM posterior",
)


class Sigmas(io.ComfyNode):
    """Sigmas spaced evenly on an interpolant, or by the host."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchSigmas",
            display_name="Flow Sigmas",
            category=CATEGORY_SAMPLING,
            description=(
                "Noise levels for a flow model. Sampling on another interpolant means spacing the "
                "steps evenly in that interpolant's own time; this node does that."
            ),
            search_aliases=["scheduler", "schedule", "vp", "interpolant", "shift", "timesteps"],
            inputs=[
                io.DynamicCombo.Input(
                    "interpolant",
                    options=[
                        *(
                            io.DynamicCombo.Option(name, [])
                            for name in ("host", *INTERPOLANTS, "rbf_reference")
                        ),
                        io.DynamicCombo.Option("curve", path_inputs()),
                    ],
                    tooltip=(
                        "In whose time steps are even. host: ComfyUI's scheduler below. linear: "
                        "even in sigma. vp: most steps at high noise. ve: Karras spacing, most "
                        "steps at low noise. trigonometric: denser at both ends. rbf_reference: "
                        "the list of the Rollover Budget Forcing paper, nearly all of it above "
                        "0.96. curve: a path that you draw."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="Steps, one evaluation each. 1: one jump; more: slower and finer.",
                ),
                io.Float.Input(
                    "shift",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    tooltip=(
                        "Time shift, on top of the model's own for host. No unit, 0.01 to 100. "
                        "Below 1: more steps at low noise (detail); above 1: more at high noise "
                        "(composition)."
                    ),
                ),
                io.Float.Input(
                    "start",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip=(
                        "First sigma. 1: from pure noise; lower: keep more of the latent, as "
                        "denoise does; near 0: hardly change it. vp, ve and rbf_reference start at "
                        "their own 0.99 at most."
                    ),
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip=(
                        "Last sigma, below start. 0: finished picture; higher: leave noise for "
                        "another stage."
                    ),
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="simple",
                    tooltip="ComfyUI's scheduler, used when interpolant is host.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=(
                        "Gives host its schedule and shift. Connect a converted model to get "
                        "sigmas for it. Without it: a flow model without shift."
                    ),
                ),
            ],
            outputs=[io.Sigmas.Output(id="sigmas")],
        )

    @classmethod
    def execute(
        cls,
        interpolant: dict[str, Any],
        steps: int,
        shift: float,
        start: float,
        end: float,
        scheduler: str,
        model: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        """List the sigmas; see schedule().

        Args:
            interpolant: Name under "interpolant"; for curve its alpha and sigma.
            steps: Number of steps.
            shift: Time shift.
            start: First sigma.
            end: Last sigma.
            scheduler: The host's.
            model: MODEL or None.

        Returns:
            SIGMAS.
        """
        choice = interpolant["interpolant"]
        path = drawn_path(interpolant) if choice == "curve" else choice
        return io.NodeOutput(schedule(path, steps, shift, start, end, scheduler, model))


def _number(name: str, parameter: laws.Parameter) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=parameter.default,
        min=parameter.low,
        max=parameter.high,
        step=0.01,
        round=False,
        tooltip=f"{parameter.meaning.capitalize()}. Range {parameter.low:g} to {parameter.high:g}.",
    )


def _law_option(name: str, spec: laws.LawSpec) -> io.DynamicCombo.Option:
    numbers = dict(spec.parameters)
    if spec.takes_points:
        meaning = "strength k at sigma {:g}; 0 is the ODE, 1 the DDPM posterior"
        numbers = {
            key: laws.Parameter(0.25, 0.0, 100.0, meaning.format(s)) for key, s in CURVE.items()
        }
    return io.DynamicCombo.Option(name, [_number(key, p) for key, p in numbers.items()])


def _law_tooltip() -> str:
    lines = [f"{name}: {spec.summary}" for name, spec in laws.NOISE_LAWS.items()]
    lines.append("drawn_curve: the same, drawn in a curve editor.")
    return "How much fresh noise each step brings.\n" + "\n".join(lines)


class NoiseLaw(io.ComfyNode):
    """How much of its noise a state keeps from step to step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        names = [DEFAULT_LAW.name, *(n for n in laws.NOISE_LAWS if n != DEFAULT_LAW.name)]
        taper = (
            "No unit, 0 to 1. {} 0 in both: no taper. For example 0.2 and 0.12, where the model's "
            "small errors would be noised and repaired again and again."
        )
        return io.Schema(
            node_id="FlowSearchNoiseLaw",
            display_name="Noise Law",
            category=CATEGORY_SAMPLING,
            description=(
                "How much fresh noise the Stochastic Flow Sampler adds, as a strength k at each "
                "sigma (0: none, the ODE; 1: the DDPM posterior). Every law leaves the "
                "distribution of pictures as it is, up to the error of finite steps."
            ),
            search_aliases=["eta", "diffusion", "sde", "ancestral", "churn", "stochasticity"],
            inputs=[
                io.DynamicCombo.Input(
                    "law",
                    options=[
                        *(_law_option(name, laws.NOISE_LAWS[name]) for name in names),
                        io.DynamicCombo.Option(
                            "drawn_curve", [law_curve_input(), _number("strength", STRENGTH)]
                        ),
                    ],
                    tooltip=_law_tooltip(),
                ),
                io.Float.Input(
                    "taper_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Sigma below which the strength starts to fall. " + taper.format(""),
                ),
                io.Float.Input(
                    "taper_stop",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Sigma at which the strength has fallen to none; below taper_start. "
                    + taper.format(""),
                ),
            ],
            outputs=[FlowNoiseLaw.Output(id="noise_law")],
        )

    @classmethod
    def execute(cls, law: dict[str, Any], taper_start: float, taper_stop: float) -> io.NodeOutput:
        """Build the law.

        Args:
            law: Name under "law", and the numbers or the curve of that law.
            taper_start: Sigma where the taper begins, 0 for none.
            taper_stop: Sigma where it ends.

        Returns:
            FLOW_NOISE_LAW.
        """
        numbers: dict[str, Any] = {key: value for key, value in law.items() if key != "law"}
        name = law["law"]
        taper = (taper_start, taper_stop) if (taper_start, taper_stop) != (0.0, 0.0) else None
        if name == "drawn_curve":
            name, numbers = "curve", drawn_law(**numbers)
        elif laws.NOISE_LAWS[name].takes_points:
            numbers = {"points": [(sigma, numbers[key]) for key, sigma in CURVE.items()]}
        return io.NodeOutput(laws.noise_law(name, taper=taper, **numbers))


class StochasticSampler(io.ComfyNode):
    """SAMPLER that draws every step from one transition."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchStochasticSampler",
            display_name="Stochastic Flow Sampler",
            category=CATEGORY_SAMPLING,
            description=(
                "A sampler that adds fresh noise at each step without changing the distribution "
                "of pictures, or none (law ode). Noise belongs to the row: a batch item looks the "
                "same alone. For flow models, and for SD1.5, SDXL and the like."
            ),
            search_aliases=[
                "ancestral",
                "sde",
                "sde sampler",
                "stochastic",
                "euler ancestral",
                "flow sampler",
                "eta",
            ],
            inputs=[
                FlowNoiseLaw.Input(
                    "noise_law",
                    optional=True,
                    tooltip=(
                        "How much fresh noise; from the node Noise Law. Not connected: as much as "
                        "ancestral sampling at high and middle sigma (k = 1), none below 0.12."
                    ),
                ),
                io.Combo.Input(
                    "transition",
                    options=list(METHODS),
                    default="second_order",
                    tooltip="How a step is taken.\n"
                    + "\n".join(f"{name}: {method.summary}." for name, method in METHODS.items()),
                ),
                io.Combo.Input(
                    "interpolant",
                    options=list(INTERPOLANTS),
                    default="linear",
                    advanced=True,
                    tooltip=(
                        "Path in whose coordinates euler_maruyama steps; vp and ve need sigmas "
                        "that start at 0.99. The other transitions are the same on all: leave "
                        "linear."
                    ),
                ),
                io.Combo.Input(
                    "last",
                    options=list(LAST_STEPS),
                    default="denoised",
                    optional=True,
                    advanced=True,
                    tooltip="What the step to sigma 0 is, for second_order.\n"
                    + "\n".join(f"{name}: {text}." for name, text in LAST_STEPS.items()),
                ),
                io.Int.Input(
                    "inner_evaluations",
                    default=4,
                    min=1,
                    max=100,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Model calls in each step of glass. 1: the exact transition; more: closer "
                        "to a true draw, and as much slower."
                    ),
                ),
                FlowGuidance.Input(
                    "guidance",
                    optional=True,
                    tooltip=(
                        "Steers every step by the gradient of a reward; from the node Gradient "
                        "Guidance. Not connected: the model alone decides."
                    ),
                ),
            ],
            outputs=[io.Sampler.Output(id="sampler")],
        )

    @classmethod
    def execute(
        cls,
        transition: str,
        interpolant: str = "linear",
        last: str = "denoised",
        inner_evaluations: int = 4,
        noise_law: laws.NoiseLaw | None = None,
        guidance: RewardGuidance | None = None,
    ) -> io.NodeOutput:
        """Build the sampler.

        Args:
            transition: Key of METHODS.
            interpolant: Key of INTERPOLANTS.
            last: Key of LAST_STEPS.
            inner_evaluations: Model calls in each step of glass.
            noise_law: FLOW_NOISE_LAW or None.
            guidance: FLOW_GUIDANCE or None.

        Returns:
            SAMPLER.
        """
        law = noise_law or DEFAULT_LAW
        how = Transition(law, transition, interpolant, last, inner_evaluations)
        if guidance is None or guidance.guidance is None:
            return io.NodeOutput(FlowSampler(how))
        if guidance.needs_noise and law == ODE.law:
            raise ValueError(
                f"{guidance.guidance.method} changes fresh noise, and the law ode draws none, so "
                "it would do nothing: connect another noise law, or choose mean_shift in Gradient "
                "Guidance"
            )
        return io.NodeOutput(FlowSampler(how.guided(guidance.guidance), guidance))


NODES = [Sigmas, NoiseLaw, StochasticSampler]
