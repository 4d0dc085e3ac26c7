"""Exact propagation of samplers on Gaussian data: no Monte Carlo, full digits.

On N(m, S^2) the exact denoiser is affine, so every step is x' = a x + b + c z and a Gaussian stays
one. a, b, c are read off the pack's own step(). Run by COMMAND it rewrites the committed table.
"""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fields import FLOAT64, Mixture

from flowsearch.samplers.paths.interpolant import VP, scale
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import ODE, RENOISE, Coefficients, Transition, fixed_q

COMMAND = (
    "PYTHONPATH=scripts:tests/support python -P -c "
    "'from devtools.pack import load_pack; load_pack(); import propagation; propagation.write()'"
)
FILE = Path(__file__).resolve().parents[1] / "data" / "integrators.json"
STEPS = (5, 10, 20, 40, 80, 320)
MEAN, STDS = 0.5, (0.1, 0.3, 1.0, 2.0)

# name: transition, interpolant in whose time the sigmas are even, W2, sd/S at N = 10; as printed
ROWS = {
    "ode_euler": (ODE, "linear", ".583 .309 .160 .0813 .0410 .0103", ".62 .82 .88 .86"),
    "em_linear_sit_sigma": (
        Transition(noise_law("sit_sigma"), "euler_maruyama"),
        "linear",
        ".335 .187 .0988 .0508 .0258 .0065",
        "1.02 .99 .95 .91",
    ),
    "em_linear_sit_constant": (
        Transition(noise_law("sit_constant"), "euler_maruyama"),
        "linear",
        ".349 .392 .678 .340 .0665 .0103",
        "4.33 1.47 .98 .93",
    ),
    "em_linear_sit_increasing_decreasing": (
        Transition(noise_law("sit_increasing_decreasing"), "euler_maruyama"),
        "linear",
        ".419 .204 .103 .0520 .0262 .0066",
        "1.34 1.08 .96 .90",
    ),
    "em_vp_half_beta": (
        Transition(noise_law("constant_k", k=1.0), "euler_maruyama", "vp"),
        "vp",
        ".142 .0596 .0364 .0216 .0124 .0035",
        ".54 1.01 1.03 .99",
    ),
    "em_vp_rbf_reference": (
        Transition(noise_law("rbf_reference"), "euler_maruyama", "vp"),
        "vp",
        ".279 .126 .0611 .0324 .0173 .0056",
        ".37 .81 1.00 .96",
    ),
    "exact_constant_k_0.25": (
        Transition(noise_law("constant_k", k=0.25)),
        "linear",
        ".624 .340 .179 .0918 .0466 .0118",
        ".60 .80 .86 .85",
    ),
    "exact_constant_k_1": (
        Transition(noise_law("constant_k", k=1.0)),
        "linear",
        ".755 .448 .248 .131 .0681 .0176",
        ".57 .73 .81 .80",
    ),
    "exact_sit_sigma": (
        Transition(noise_law("sit_sigma")),
        "linear",
        ".659 .370 .200 .105 .0546 .0142",
        ".58 .75 .84 .84",
    ),
    "second_order_ode": (
        Transition(noise_law("ode"), "second_order"),
        "linear",
        ".131 .0450 .0149 .0038 .00086 .00005",
        ".64 .91 .99 1.00",
    ),
    "second_order_sit_sigma": (
        Transition(noise_law("sit_sigma"), "second_order"),
        "linear",
        ".153 .0528 .0173 .0032 .00053 .00009",
        ".61 .88 1.00 1.00",
    ),
    "second_order_sit_sigma_extrapolated": (
        Transition(noise_law("sit_sigma"), "second_order", last="extrapolated"),
        "linear",
        ".085 .0275 .0087 .0035 .0018 .00018",
        ".78 .96 1.01 1.01",
    ),
    "second_order_constant_k_1": (
        Transition(noise_law("constant_k", k=1.0), "second_order"),
        "linear",
        ".173 .0608 .0186 .0036 .00076 .00010",
        ".60 .88 1.00 1.01",
    ),
    "heun_sit_sigma": (
        Transition(noise_law("sit_sigma"), "heun"),
        "linear",
        ".0462 .0155 .0047 .0018 .00088 .00012",
        ".88 .98 1.00 1.00",
    ),
    "fixed_q_glass_0.4": (
        Transition(noise_law("fixed_q", q=0.4), "glass"),
        "linear",
        ".266 .179 .144 .132 .132 .152",
        ".61 .83 .92 .93",
    ),
    "renoise": (RENOISE, "linear", ".954 .820 .749 .710 .689 .671", ".52 .60 .63 .64"),
    "fixed_q_cps_0.7": (
        fixed_q(math.cos(0.7 * math.pi / 2.0)),
        "linear",
        ".734 .537 .438 .389 .364 .343",
        ".57 .71 .76 .76",
    ),
}

# N(0, 1) in linear coordinates, but for the published code, whose start is N(0, 1) in VP's. (For
# em_vp_half_beta that start would give 0.0034488 at N = 320, which does not round to .0035.)
START_STD = {"em_vp_rbf_reference": 1.0 / scale(VP, VP.r_noise)}


@dataclass(frozen=True)
class Broken:
    """A transition with wrong coefficients, which a law's test must see."""

    right: Transition
    change: Callable[[Coefficients], Coefficients]

    @property
    def method(self):
        return self.right.method

    @property
    def memory(self):
        return self.right.memory

    @property
    def guidance(self):
        return self.right.guidance

    def coefficients(self, sigma, sigma_next, past=()):
        return self.change(self.right.coefficients(sigma, sigma_next, past))


MUTANTS = {
    "noise without its factor of two": lambda c: replace(c, weight_z=c.weight_z / math.sqrt(2.0)),
    "noise without drift": lambda c: replace(c, weight_e=0.0),
    "drift without noise": lambda c: replace(c, weight_z=0.0),
}


def propagate(transition, sigmas, data: Mixture, mean=0.0, std=1.0):
    """Return mean and std at the end of N(mean, std^2) carried along sigmas."""
    means, spreads = _carried(transition, sigmas, data.denoise, mean, std, 1)
    return means.item(), spreads.item()


def propagate_stds(transition, sigmas, mean=0.0, std=1.0):
    """Return [(mean, std)] at the end for data N(MEAN, S^2), S in STDS."""
    variance = torch.tensor(STDS, dtype=FLOAT64) ** 2

    def denoise(x, sigma):
        a = 1.0 - sigma
        return MEAN + a * variance / (a * a * variance + sigma**2) * (x - a * MEAN)

    means, spreads = _carried(transition, sigmas, denoise, mean, std, len(STDS))
    return list(zip(means.tolist(), spreads.tolist(), strict=True))


def _carried(transition, sigmas, denoise, mean, std, columns):
    """Row 0 is the state without any noise; each other row differs by one source of noise."""
    x = torch.full((1 + len(sigmas), columns), mean, dtype=FLOAT64)
    x[1] += std

    def noise(step_index):
        z = torch.zeros_like(x)
        z[2 + step_index] = 1.0
        return z

    end = integrate(denoise, x, sigmas, transition, noise)
    return end[0], (end[1:] - end[0]).norm(dim=0)


def errors(name, steps, transition=None):
    """Return W2 over independent coordinates N(.5, S^2), and std / S of each, for a row."""
    of_row, interpolant, _, _ = ROWS[name]
    sigmas = in_interpolant(interpolant, steps)
    start = START_STD.get(name, 1.0)
    ends = propagate_stds(transition or of_row, sigmas, 0.0, start)
    gaps = [(m - MEAN, d - s) for (m, d), s in zip(ends, STDS, strict=True)]
    w2 = math.hypot(*itertools.chain.from_iterable(gaps))
    return w2, [d / s for (_, d), s in zip(ends, STDS, strict=True)]


def table():
    """Return the content of integrators.json."""
    rows = {}
    for name, (transition, interpolant, _, _) in ROWS.items():
        found = {steps: errors(name, steps) for steps in STEPS}
        rows[name] = {
            "transition": transition.to_json(),
            "sigmas": f"even in {interpolant} time, N + 1 of them, the last 0",
            "start_std": START_STD.get(name, 1.0),
            "w2": {str(steps): w2 for steps, (w2, _) in found.items()},
            "std_ratio_at_10": dict(zip(map(str, STDS), found[10][1], strict=True)),
        }
    return {
        "command": COMMAND,
        "setup": "data: 4 independent coordinates N(0.5, S^2), S = 0.1, 0.3, 1, 2, exact denoiser; "
        "start: N(0, start_std^2) in linear coordinates at the first sigma; w2: 2-Wasserstein "
        "distance to the data over the coordinates; exact propagation of mean and std, float64",
        "rows": rows,
    }


def write():
    """Rewrite the committed table."""
    FILE.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
