"""Does the pack do on an accelerator what it does on a CPU, and what does it cost there?

    python scripts/dev.py bench gpu [--small] [--only NAME ...] [--json FILE]

Networks of the host's own Flux and Wan classes as large as people run them (12 and 14 thousand
million parameters), with random weights in bfloat16 and float8, so that nothing is downloaded.
--small, and a machine without an accelerator, runs the same code with one layer (in float32 and
float8 on a CPU). It has not been run on an accelerator yet. Ratios are taken within one run, the
two sides in turn. `dev.py bundle FOLDER` makes what a machine without a network needs.

| case | what it shows |
|---|---|
| steps | seconds a step of Stochastic Flow Sampler over those of ComfyUI's euler; the same bits |
| search | share of RBF Search's and Reward Search's seconds that the model does not take |
| memory | peak of memory over what the search foretold |
| eviction | the same bits when everything is pushed out of memory at every score |
| dynamic | the same bits with ComfyUI's dynamic memory as without (a GPU only) |
| full | a memory that is really full: the call is halved and the search ends (a GPU only) |
| noise | noise is that of the CPU, bit for bit |
| reward | CLIP Score in float16 beside float32 |
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _host
import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()
HAS_GPU = torch.cuda.is_available()
_host.enter(cpu=not HAS_GPU)

import comfy.model_management as management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.samplers  # noqa: E402
from _large_models import LARGE, SMALL, Size, conditioning, flow_model, vae  # noqa: E402
from _report import Report  # noqa: E402
from comfy.patcher_extension import WrappersMP  # noqa: E402

from flowsearch.nodes.host.model.flow_sampler import FlowSampler  # noqa: E402
from flowsearch.nodes.host.model.measure import call_memory  # noqa: E402
from flowsearch.nodes.host.search.forms import (  # noqa: E402
    SeededNoise,
    cfg_guider,
    ksampler_sigmas,
    search_latent,
)
from flowsearch.nodes.host.search.search_sampler import StrategyChoice  # noqa: E402
from flowsearch.nodes.search.searcher import SearchInputs  # noqa: E402
from flowsearch.rewards.latent import LatentReward  # noqa: E402
from flowsearch.rewards.pixels.image_statistic import ImageStatistic  # noqa: E402
from flowsearch.samplers.search import STRATEGIES  # noqa: E402
from flowsearch.samplers.stepping.noise import keyed_normal  # noqa: E402
from flowsearch.samplers.stepping.transition import ODE  # noqa: E402

STEPS = 8
EVALUATIONS = 40
OVERHEAD = 0.1
SEARCHES = {"RBF Search": "rbf", "Reward Search": "evolutionary"}
COMPUTED = torch.bfloat16 if HAS_GPU else torch.float32
TYPES: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    str(COMPUTED).removeprefix("torch."): (COMPUTED, None),
    "float8": (torch.float8_e4m3fn, COMPUTED),
}
"""Types of the weights, and those that they are cast to in each call."""


def wait() -> None:
    """Wait until the device has done what it was told."""
    if HAS_GPU:
        torch.cuda.synchronize()


@dataclass
class Clock:
    """Adds up the seconds of a model's calls.

    Attributes:
        seconds: Of all calls.
        calls: How many.
    """

    seconds: float = 0.0
    calls: int = 0

    def wrapper(self, executor: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The host's DIFFUSION_MODEL wrapper."""
        wait()
        start = time.perf_counter()
        out = executor(*args, **kwargs)
        wait()
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return out


@dataclass
class Bench:
    """One model in one type, and what is done with it.

    Attributes:
        name: Of the model.
        stored: Name of the type of its weights.
        size: Of the model.
        report: Where rows and claims go.
        model: MODEL.
    """

    name: str
    stored: str
    size: Size
    report: Report
    model: comfy.model_patcher.ModelPatcher = field(init=False)

    def __post_init__(self) -> None:
        """Make the model."""
        self.model = flow_model(self.size, *TYPES[self.stored])

    def row(self, case: str, **found: Any) -> None:
        """Add a row; every case is a table of its own."""
        shown = {"model": self.name, "weights": self.stored, "latent": self.size.shown}
        self.report.rows.append({"part": case, **shown, **found})
        print(self.report.rows[-1], flush=True)

    def claim(self, text: str, value: float, target: float, holds: bool) -> None:
        """Add a claim."""
        self.report.claim(f"{self.name}, {self.stored}: {text}", value, target, holds)

    def guider(self, model: Any = None) -> comfy.samplers.CFGGuider:
        """Return the guider of KSampler without guidance, as these models are used."""
        positive, negative = (conditioning(self.size, seed) for seed in (1, 2))
        return cfg_guider(model or self.model, positive, negative, 1.0)

    def sigmas(self) -> Tensor:
        """Return the sigmas of a run."""
        return ksampler_sigmas(self.model, "simple", STEPS, 1.0)

    def latent(self) -> dict[str, Any]:
        """Return an empty LATENT."""
        return {"samples": torch.zeros(1, *self.size.latent)}

    def sample(self, sampler: comfy.samplers.Sampler) -> tuple[Tensor, float]:
        """Sample once.

        Args:
            sampler: SAMPLER.

        Returns:
            The latent, and seconds.
        """
        latent = self.latent()
        noise = SeededNoise(1).generate_noise(latent)
        wait()
        start = time.perf_counter()
        out = self.guider().sample(noise, latent["samples"], sampler, self.sigmas(), seed=1)
        wait()
        return out, time.perf_counter() - start

    def search(
        self, strategy: str, reward: Any, rows: int = 0, model: Any = None, **more: Any
    ) -> tuple[Tensor, Any, float]:
        """Search once.

        Args:
            strategy: Its name.
            reward: FLOW_REWARD.
            rows: Candidates in a call, 0 for as many as fit.
            model: MODEL instead of the own one.
            **more: Further arguments of SearchInputs.

        Returns:
            The latent, the report, and seconds.
        """
        found = SearchInputs(reward=reward, evaluations=EVALUATIONS, target={"target": "never"},
            strategy=StrategyChoice(STRATEGIES[strategy](), rows_per_call=rows),
            checkpoint_seconds=0.0, **more,).search(FlowSampler(ODE))  # fmt: skip
        wait()
        start = time.perf_counter()
        out, _, report = search_latent(
            self.guider(model), SeededNoise(1), self.sigmas(), self.latent(), found
        )[:3]
        wait()
        return out["samples"], report, time.perf_counter() - start


def of_latents() -> LatentReward:
    """A reward that costs nothing, so that what is measured is the search."""
    return LatentReward("std")


def steps(bench: Bench) -> None:
    """Seconds of a step beside those of the host's euler."""
    euler, ours = comfy.samplers.ksampler("euler"), FlowSampler(ODE)
    bench.sample(euler)  # loads, compiles, warms up
    ratios, same = [], True
    for _ in range(3):
        (first, theirs), (second, own) = bench.sample(euler), bench.sample(ours)
        ratios.append(own / theirs)
        same = same and torch.equal(first, second)
    ratio = sorted(ratios)[1]
    bench.row("steps", ratio=ratio, **{"euler (s a step)": theirs / STEPS, "same bits": same})
    bench.claim(f"a step takes {ratio:.3f} of euler's seconds", ratio, 1.05, ratio <= 1.05)
    bench.claim("the picture is euler's to the bit", float(same), 1.0, same)


def search(bench: Bench) -> None:
    """Share of a search that is not the model's, without and with a picture to decode."""
    rewards: dict[str, tuple[Any, dict[str, Any]]] = {"of latents": (of_latents(), {})}
    if HAS_GPU and bench.name == "Flux":  # a CPU takes minutes to decode
        rewards["of pictures"] = (ImageStatistic("sharpness"), {"vae": vae()})
    for name, strategy in SEARCHES.items():
        for kind, (reward, more) in rewards.items():
            clock, model = Clock(), bench.model.clone()
            model.add_wrapper(WrappersMP.DIFFUSION_MODEL, clock.wrapper)
            _, _, seconds = bench.search(strategy, reward, model=model, **more)
            share = 1.0 - clock.seconds / seconds
            bench.row(
                "search", search=name, reward=kind, seconds=seconds,
                **{"s a call": clock.seconds / clock.calls, "not the model's": share},
            )  # fmt: skip
            text = f"{name}, reward {kind}: {share:.3f} of the seconds are not the model's"
            if kind == "of latents":  # decoding is the user's VAE
                bench.claim(text, share, OVERHEAD, share <= OVERHEAD)


def memory(bench: Bench) -> None:
    """Peak of memory beside what was foretold."""
    if not HAS_GPU:
        return
    management.load_models_gpu([bench.model])
    torch.cuda.reset_peak_memory_stats()
    loaded = torch.cuda.memory_allocated()
    foretold: dict[int, float] = {}
    rows = 4

    class Asking(FlowSampler):
        """Reckons inside sample(), where the guider is ready."""

        def sample(self, model_wrap: Any, *args: Any, **kwargs: Any) -> Tensor:
            foretold[rows] = call_memory(model_wrap, (1, *bench.size.latent), rows)
            return super().sample(model_wrap, *args, **kwargs)

    bench.sample(Asking(ODE))
    torch.cuda.reset_peak_memory_stats()
    bench.search("best_of_n", of_latents(), rows=rows)
    peak = torch.cuda.max_memory_allocated() - loaded
    ratio = peak / foretold[rows]
    bench.row("memory", rows=rows, **{
        "foretold (GB)": foretold[rows] / 2**30, "peak (GB)": peak / 2**30, "ratio": ratio
    })  # fmt: skip
    bench.claim(f"the peak is {ratio:.2f} of what was foretold", ratio, 1.5, ratio <= 1.5)


class Evicting:
    """A reward that pushes every model out of memory first."""

    def __init__(self, inner: Any) -> None:
        """Wrap a reward."""
        self._inner, self.spec = inner, inner.spec

    def score(self, latents: Tensor) -> Tensor:
        """Push all out, then score."""
        management.free_memory(1e30, management.get_torch_device())
        return self._inner.score(latents)


def eviction(bench: Bench) -> None:
    """The same bits under forced eviction."""
    kept, _, seconds = bench.search("rbf", of_latents(), rows=2)
    evicted, _, slow = bench.search("rbf", Evicting(of_latents()), rows=2)
    same = torch.equal(kept, evicted)
    bench.row("eviction", **{"same bits": same, "seconds": seconds, "with eviction": slow})
    bench.claim("forced eviction changes no bit", float(same), 1.0, same)


def dynamic(bench: Bench) -> None:
    """The same bits with the host's dynamic memory."""
    if not HAS_GPU:
        return
    import comfy.memory_management
    import comfy_aimdo.control

    kept, _, _ = bench.search("rbf", of_latents(), rows=2)
    comfy_aimdo.control.init()
    devices = [(each.index or 0, 0) for each in management.get_all_torch_devices()]
    if not comfy_aimdo.control.init_devices(devices):
        bench.row("dynamic", **{"same bits": "this machine has no dynamic memory"})
        return
    plain = comfy.model_patcher.CoreModelPatcher
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    try:
        model = flow_model(bench.size, *TYPES[bench.stored])
        found, _, _ = bench.search("rbf", Evicting(of_latents()), rows=2, model=model)
    finally:
        comfy.model_patcher.CoreModelPatcher = plain
        comfy.memory_management.aimdo_enabled = False
    same = torch.equal(kept, found)
    bench.row("dynamic", **{"same bits": same})
    bench.claim("dynamic memory changes no bit", float(same), 1.0, same)


@contextmanager
def ballast(left: int) -> Iterator[None]:
    """Fill the device's memory up to `left` bytes."""
    free = torch.cuda.mem_get_info()[0]
    held = torch.empty(max(0, free - left), dtype=torch.uint8, device="cuda")
    yield
    del held
    torch.cuda.empty_cache()


def full(bench: Bench) -> None:
    """Memory that is really full."""
    if not HAS_GPU:
        return
    management.load_models_gpu([bench.model])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    loaded = torch.cuda.memory_allocated()
    bench.search("best_of_n", of_latents(), rows=1)
    one = torch.cuda.max_memory_allocated() - loaded
    torch.cuda.empty_cache()
    with ballast(3 * one):
        _, report, _ = bench.search("best_of_n", of_latents(), rows=32)
    rows = [size for _, size in report.chunks]
    halved = rows[-1] < 32
    bench.row("full", **{"rows per call": rows, "reward": report.score})
    bench.claim(f"full memory is halved ({rows}) and finished", rows[-1], 16, halved)


def noise(bench: Bench) -> None:
    """Noise of the device is that of the CPU."""
    device = management.get_torch_device()
    drawn = keyed_normal(bench.size.latent, 1, 2, 3).to(device)
    same = torch.equal(drawn.cpu(), keyed_normal(bench.size.latent, 1, 2, 3))
    ours, _ = bench.sample(FlowSampler(ODE))
    again, _ = bench.sample(FlowSampler(ODE))
    repeats = torch.equal(ours, again)
    bench.row("noise", **{"the CPU's": same, "a run repeats": repeats})
    bench.claim("noise is the CPU's to the bit", float(same), 1.0, same)


def reward(bench: Bench) -> None:
    """CLIP Score in the type of an accelerator beside float32."""
    import _reward_networks as networks

    torch.manual_seed(0)
    scorer, _ = networks.MAKERS["clip_score"](4)
    shown = networks.pictures(4)
    found: dict[torch.dtype, Tensor] = {}
    holder = scorer.holders[0]
    for dtype in (torch.float32, torch.float16 if HAS_GPU else torch.bfloat16):
        holder.network.to(dtype)
        found[dtype] = scorer.score(shown).float().cpu()
    exact, short = found.values()
    off = (exact - short).abs().max().item()
    bench.row("reward", **{"type": str([*found][1]), "off by at most": off})
    bench.claim(f"CLIP Score in {[*found][1]} is off by {off:.1e}", off, 0.01, off <= 0.01)


CASES = {
    "steps": steps, "search": search, "memory": memory, "eviction": eviction, "dynamic": dynamic,
    "full": full, "noise": noise, "reward": reward,
}  # fmt: skip
ONCE = ("noise", "reward", "dynamic")
"""Cases that one model is enough for."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one layer, also on an accelerator")
    parser.add_argument("--quick", action="store_true", help="the same as --small")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = LARGE if HAS_GPU and not (options.small or options.quick) else SMALL
    report = Report("gpu")
    done: set[str] = set()
    for name, size in sizes.items():
        for stored in TYPES:
            bench = Bench(name, stored, size, report)
            for case in options.only:
                if case in ONCE and case in done:
                    continue
                done.add(case)
                with torch.inference_mode():
                    CASES[case](bench)
            del bench
            management.unload_all_models()
            management.soft_empty_cache()
    report.finish(options.json)


if __name__ == "__main__":
    main()
