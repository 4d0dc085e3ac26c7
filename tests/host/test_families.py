"""Every family of models that the host knows, made by its own classes: what works, what is refused.

What came of it is committed in tests/data/models.json, from which the table in docs/MODELS.md is
made; `python scripts/dev.py models` writes both.
"""

import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import comfy.samplers
import families as f
import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.conversion import convert
from flowsearch.nodes.flow_sampler import FlowSampler
from flowsearch.nodes.search import searcher
from flowsearch.rewards.latent import LatentReward
from flowsearch.samplers.noise_law import noise_law
from flowsearch.samplers.transition import ODE, Transition

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "data" / "models.json"
TABLE = ROOT / "docs" / "MODELS.md"
COMMAND = "python scripts/dev.py models"
EULER = comfy.samplers.sampler_object("euler")
SDE = Transition(noise_law("constant_k", k=0.5))
STEPS = 4
WRITE = "FLOWSEARCH_WRITE_MODELS"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small calls: more threads only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Watched(FlowSampler):
    """Our sampler, which also keeps the noise that it draws."""

    drawn: list = field(default_factory=list)

    def noise(self, field, step):
        self.drawn.append(super().noise(field, step))
        return self.drawn[-1]


def guider(family, cfg=2.0):
    prompts = f.conditioning(family, 1), f.conditioning(family, 2)
    return hm.guider(f.model(family.name), *prompts, cfg)


def sigmas_of(model, steps=STEPS):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", steps)


def parts(samples):
    """The latents of a LATENT, or of a noise: one, or video and audio."""
    return samples.unbind() if samples.is_nested else [samples]


def flat(samples):
    """One row of numbers for each item."""
    return torch.cat([part.flatten(1) for part in parts(samples)], 1)


def run(family, sampler, latent=None, **guidance):
    model = f.model(family.name)
    latent = f.latent(family, 2) if latent is None else latent
    out, _ = hm.run(guider(family, **guidance), sampler, sigmas_of(model), latent)
    shapes = [part.shape for part in parts(out)]
    assert shapes == [part.shape for part in parts(latent["samples"])]
    return flat(out)


def sampled(family):
    """Stochastic Flow Sampler: with the ODE the host's euler to the bit; its noise is each row's own."""
    host = run(family, EULER)
    assert host.std() > 0.1
    assert (host[0] - host[1]).abs().max() > 0.1
    assert torch.equal(run(family, FlowSampler(ODE)), host)
    batch, alone = Watched(SDE), Watched(SDE)
    both = run(family, batch)
    assert torch.isfinite(both).all()
    assert (both - host).abs().max() > 0.1
    one = run(family, alone, {**f.latent(family), "batch_index": [1]})
    assert len(batch.drawn) == STEPS - 1
    for in_batch, by_itself in zip(batch.drawn, alone.drawn, strict=True):
        assert torch.equal(in_batch[1:], by_itself)
        assert not torch.equal(in_batch[:1], by_itself)
    assert (both[1] - one[0]).abs().max() < 1e-3 * float(both.std())


def converted(family):
    """Interpolant Conversion: euler on the converted model gives what it gives on the model."""
    model = f.model(family.name)
    prompts = f.conditioning(family, 1), f.conditioning(family, 2)
    for target in ("ve", "vp"):
        shown = convert(model, target)
        t = torch.tensor([0.99, 0.8, 0.5, 0.2, 0.0])
        own = shown.get_model_object("model_sampling").s_from_t(t.double()).float()
        latent = f.latent(family)
        native = flat(hm.run(guider(family), EULER, t, latent)[0])
        found = flat(hm.run(hm.guider(shown, *prompts, 2.0), EULER, own, latent)[0])
        assert (native - found).abs().max() < 1e-3 * float(native.std())


def searched(family, *strategy, **of_it):
    """A search finds what the sampler gives, or better, in every form; what it says is so."""
    reward = LatentReward("mean")
    chosen = s.strategy(*strategy, **of_it) if strategy else None
    settings = {"evaluations": 24, "target": s.NEVER, "strategy": chosen}
    model = f.model(family.name)
    latent, _, report = s.search(
        guider(family, 1.0), FlowSampler(SDE), f.latent(family), seed=0, sigmas=sigmas_of(model),
        vae=None, reward=reward, **settings,
    )  # fmt: skip
    found = flat(latent["samples"])
    shapes = [part.shape for part in parts(f.latent(family)["samples"])]
    assert [part.shape for part in parts(latent["samples"])] == shapes
    assert float(found.mean()) == pytest.approx(report.best(0), rel=1e-3, abs=1e-5)
    assert report.best(0) >= report.plain(0)
    assert len({row["scores"]["value"] for row in report.trace.record["evaluated"] if row["scores"]}) > STEPS
    assert float(run(family, FlowSampler(SDE), f.latent(family), cfg=1.0).mean()) == pytest.approx(
        report.plain(0), rel=1e-3, abs=1e-5
    )
    as_sampler = searcher(FlowSampler(SDE), vae=None, reward=reward, **settings)
    assert torch.equal(run(family, as_sampler, f.latent(family), cfg=1.0), found)


def by_default(family):
    """Search with its usual strategy, which also mixes pictures, for the mean of the latent."""
    searched(family)


def by_rbf(family):
    """The same with Rollover Budget Forcing."""
    searched(family, "rbf")


def by_smc(family):
    """The same with Sequential Monte Carlo."""
    searched(family, "smc", particles=4, score_below=0.95)


TRIED = {
    "sampler": sampled,
    "conversion": converted,
    "search": by_default,
    "RBF": by_rbf,
    "SMC": by_smc,
}


@cache
def outcome(name, what):
    """What came of trying a part of the pack on a family: "yes", or our refusal's own words."""
    try:
        TRIED[what](f.BY_NAME[name])
    except ValueError as refusal:
        return str(refusal)
    return "yes"


def entry(name):
    """What is recorded of a family."""
    family = f.BY_NAME[name]
    shapes = ["x".join(str(size) for size in shape) for shape in family.latents]
    made = {"class": family.kind, "of": family.of, "latents": " and ".join(shapes)}
    return {**made, **{what: outcome(name, what) for what in TRIED}}


def table(record):
    """The record for people: one row a family, reasons below."""
    reasons = list(dict.fromkeys(
        row[what] for row in record.values() for what in TRIED if row[what] != "yes"
    ))  # fmt: skip
    lines = [
        "# Models",
        "",
        "Families of models, each made small by ComfyUI's own classes with random weights, and what",
        f"was tried on it. Written by `{COMMAND}`; the tests hold it to what happens.",
        "",
        f"| model | latents are | {' | '.join(TRIED)} |",
        "|---" * (2 + len(TRIED)) + "|",
    ]
    for name, row in record.items():
        said = [
            "yes" if row[what] == "yes" else f"no [{reasons.index(row[what]) + 1}]"
            for what in TRIED
        ]
        lines.append(f"| {name} | {row['of']} | {' | '.join(said)} |")
    lines += ["", *(f"{number}. {reason}." for number, reason in enumerate(reasons, 1))]
    lines += ["", *(f"* {what}: {' '.join(test.__doc__.split())}" for what, test in TRIED.items())]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", f.BY_NAME)
def test_the_host_recognises_it(name):
    assert type(f.detect(f.BY_NAME[name])).__name__ == f.BY_NAME[name].kind


@pytest.mark.parametrize("what", TRIED)
@pytest.mark.parametrize("name", f.BY_NAME)
def test_it_does_what_the_record_says(name, what):
    """The laws are in the functions above; what breaks one of them raises AssertionError."""
    found = outcome(name, what)
    if not os.environ.get(WRITE):
        assert found == json.loads(RECORD.read_text(encoding="utf-8"))[name][what], COMMAND


def test_the_record_and_the_table_are_the_runs():
    if os.environ.get(WRITE):
        record = {name: entry(name) for name in f.BY_NAME}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        TABLE.write_text(table(record), encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert list(record) == list(f.BY_NAME), COMMAND
    assert TABLE.read_text(encoding="utf-8") == table(record), COMMAND
